/* epoll: numbers that were closed or used again while a duplicate keeps the file open */
#include "../object.h"
#include <sys/epoll.h>

static void add(int ep, int fd, uint64_t data)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = data };

	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
}

int main(void)
{
	struct epoll_event ev[8];
	int p[2], other[2];
	char c;

	ht_init();
	int ep = epoll_create1(0);
	CHECK_EQ(pipe(p), 0);
	CHECK_EQ(pipe(other), 0);
	int gone = dup(p[0]), again = dup(p[0]);
	add(ep, gone, 1);
	add(ep, again, 2);
	close(gone);
	CHECK_EQ(dup3(other[0], again, O_CLOEXEC), again);
	add(ep, again, 3);
	while (point()) {
		uint64_t sum = 0;

		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 0);
		CHECK_EQ(write(p[1], "x", 1), 1);
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 2);
		sum = ev[0].data.u64 + ev[1].data.u64;
		CHECK_EQ(sum, 1 + 2);
		CHECK_EQ(read(p[0], &c, 1), 1);
		CHECK_EQ(write(other[1], "y", 1), 1);
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 1);
		CHECK_EQ(ev[0].data.u64, 3);
		CHECK_EQ(read(again, &c, 1), 1);
		CHECK_EQ(c, 'y');
		CHECK_EQ(fcntl(again, F_GETFD), FD_CLOEXEC);
		CHECK_EQ(fcntl(gone, F_GETFD), -1);
		CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_DEL, gone, ev), -1); /* the well-known trap */
		CHECK_EQ(errno, EBADF);
	}
	return done();
}
