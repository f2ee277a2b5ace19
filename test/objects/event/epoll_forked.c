/* epoll: one instance in two processes, each with registrations of its own files, one of which has fired */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
}

int main(void)
{
	struct epoll_event ev[8];
	int mine[2], fired[2], link[2];
	char c;

	ht_init();
	int ep = epoll_create1(0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, link), 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) { /* has pipes of its own under the numbers of the parent's */
		int own[2];

		CHECK_EQ(pipe(own), 0);
		add(ep, own[0], EPOLLIN, 100);
		CHECK_EQ(write(link[1], "+", 1), 1);
		while (read(link[1], &c, 1) == 1 && c != 'q') {
			if (c == 'w')
				CHECK_EQ(write(own[1], "x", 1), 1);
			else
				CHECK_EQ(read(own[0], &c, 1), 1);
			CHECK_EQ(write(link[1], "+", 1), 1);
		}
		_exit(0);
	}
	CHECK_EQ(read(link[0], &c, 1), 1);
	CHECK_EQ(pipe(mine), 0);
	CHECK_EQ(pipe(fired), 0);
	CHECK_EQ(write(fired[1], "x", 1), 1);
	add(ep, fired[0], EPOLLIN | EPOLLONESHOT, 201);
	CHECK_EQ(epoll_wait(ep, ev, 8, 0), 1);
	add(ep, mine[0], EPOLLIN, 200);
	while (point()) {
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 0);
		CHECK_EQ(write(link[0], "w", 1), 1);
		CHECK_EQ(read(link[0], &c, 1), 1);
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 1);
		CHECK_EQ(ev[0].data.u64, 100);
		CHECK_EQ(write(mine[1], "x", 1), 1);
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 2);
		CHECK_EQ(read(mine[0], &c, 1), 1);
		CHECK_EQ(write(link[0], "r", 1), 1);
		CHECK_EQ(read(link[0], &c, 1), 1);
	}
	CHECK_EQ(write(link[0], "q", 1), 1);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	return done();
}
