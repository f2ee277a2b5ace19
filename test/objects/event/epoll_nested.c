/* epoll: epolls in epolls, level- and edge-triggered */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
}

int main(void)
{
	struct epoll_event ev[8];
	uint64_t n = 1;

	ht_init();
	int outer = epoll_create1(0), middle = epoll_create1(0), inner = epoll_create1(EPOLL_CLOEXEC);
	int counter = eventfd(0, EFD_NONBLOCK), always = eventfd(1, EFD_NONBLOCK), edges = epoll_create1(0), told = epoll_create1(0);
	add(outer, middle, EPOLLIN, 1);
	add(middle, inner, EPOLLIN, 2);
	add(inner, counter, EPOLLIN, 3);
	add(told, always, EPOLLIN, 4);
	add(edges, told, EPOLLIN | EPOLLET, 5);
	CHECK_EQ(epoll_wait(edges, ev, 8, 0), 1); /* this edge is past */
	CHECK_EQ(epoll_wait(edges, ev, 8, 0), 0);
	while (point()) {
		CHECK_EQ(epoll_wait(edges, ev, 8, 0), 0);
		CHECK_EQ(epoll_wait(told, ev, 8, 0), 1);
		CHECK_EQ(epoll_wait(outer, ev, 8, 0), 0);
		CHECK_EQ(write(counter, &n, sizeof n), sizeof n);
		int chain[] = { outer, middle, inner };
		for (int i = 0; i < 3; i++) {
			CHECK_EQ(epoll_wait(chain[i], ev, 8, 0), 1);
			CHECK_EQ(ev[0].data.u64, i + 1);
		}
		CHECK_EQ(read(counter, &n, sizeof n), sizeof n);
		CHECK_EQ(epoll_ctl(inner, EPOLL_CTL_ADD, outer, ev), -1);
		CHECK_EQ(errno, ELOOP);
	}
	return done();
}
