/* epoll: edges that were told are not told again, hang-ups among them; those that were not are */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/socket.h>

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
}

int main(void)
{
	struct epoll_event ev[8];
	int pipes[2], pair[2], later[2], ended[2];

	ht_init();
	int told = epoll_create1(0), untold = epoll_create1(0);
	CHECK_EQ(pipe(pipes), 0);
	CHECK_EQ(pipe(later), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	CHECK_EQ(pipe(ended), 0);
	close(ended[1]);
	add(told, ended[0], EPOLLIN | EPOLLET, 5);
	add(told, pipes[0], EPOLLIN | EPOLLET, 1);
	add(told, pair[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 2);
	add(told, pair[1], EPOLLIN | EPOLLET | EPOLLEXCLUSIVE, 3);
	add(untold, later[0], EPOLLIN | EPOLLET, 4);
	CHECK_EQ(write(pipes[1], "a", 1), 1);
	CHECK_EQ(write(pair[0], "b", 1), 1);
	CHECK_EQ(epoll_wait(told, ev, 8, 0), 4);
	CHECK_EQ(epoll_wait(told, ev, 8, 0), 0);
	CHECK_EQ(write(later[1], "c", 1), 1);
	while (point()) {
		char c;

		CHECK_EQ(epoll_wait(told, ev, 8, 0), 0);
		CHECK_EQ(epoll_wait(untold, ev, 8, 0), 1);
		CHECK_EQ(ev[0].data.u64, 4);
		CHECK_EQ(write(pipes[1], "d", 1), 1); /* a new edge of the same */
		CHECK_EQ(epoll_wait(told, ev, 8, 0), 1);
		CHECK_EQ(ev[0].data.u64, 1);
		CHECK_EQ(read(pipes[0], &c, 1), 1);
		CHECK_EQ(epoll_wait(told, ev, 8, 0), 0);
		CHECK_EQ(write(pair[1], "e", 1), 1);
		CHECK_EQ(epoll_wait(told, ev, 8, 0), 1);
		CHECK_EQ(ev[0].data.u64, 2);
		CHECK_EQ(ev[0].events, EPOLLIN | EPOLLOUT);
		CHECK_EQ(write(later[1], "f", 1), 1);
	}
	return done();
}
