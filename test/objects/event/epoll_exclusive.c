/* epoll: EPOLLEXCLUSIVE, one file in two epolls, and what epoll_ctl says of it */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

int main(void)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.u64 = 11 }, got[2];
	uint64_t n = 1;

	ht_init();
	int a = epoll_create1(0), b = epoll_create1(0), fd = eventfd(0, EFD_NONBLOCK);
	CHECK_EQ(epoll_ctl(a, EPOLL_CTL_ADD, fd, &ev), 0);
	ev.data.u64 = 12;
	CHECK_EQ(epoll_ctl(b, EPOLL_CTL_ADD, fd, &ev), 0);
	while (point()) {
		CHECK_EQ(epoll_wait(a, got, 2, 0), 0);
		CHECK_EQ(write(fd, &n, sizeof n), sizeof n);
		CHECK_EQ(epoll_wait(a, got, 2, 0), 1);
		CHECK_EQ(got[0].data.u64, 11);
		CHECK_EQ(epoll_wait(b, got, 2, 0), 1);
		CHECK_EQ(got[0].data.u64, 12);
		CHECK_EQ(read(fd, &n, sizeof n), sizeof n);
		/* It cannot be modified, which tells that the flag is set. */
		CHECK_EQ(epoll_ctl(a, EPOLL_CTL_MOD, fd, &ev), -1);
		CHECK_EQ(errno, EINVAL);
		ev.events = EPOLLIN;
		CHECK_EQ(epoll_ctl(a, EPOLL_CTL_MOD, fd, &ev), -1);
		CHECK_EQ(errno, EINVAL);
	}
	return done();
}
