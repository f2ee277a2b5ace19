/* epoll: a thousand level-triggered registrations with 64 bits of data each */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define FILES 1000

static uint64_t data_of(int i) { return 0x9e3779b97f4a7c15 * (i + 1); }

int main(void)
{
	static int fds[FILES];
	static struct epoll_event ev[FILES];
	uint64_t n = 1;

	ht_init();
	int ep = epoll_create1(0);
	for (int i = 0; i < FILES; i++) {
		CHECK((fds[i] = eventfd(i % 3 == 0, EFD_NONBLOCK)) >= 0);
		ev[0] = (struct epoll_event){ .events = EPOLLIN | EPOLLPRI, .data.u64 = data_of(i) };
		CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], ev), 0);
	}
	while (point()) {
		for (int round = 0; round < 2; round++) { /* they stay ready */
			char seen[FILES] = "";

			CHECK_EQ(epoll_wait(ep, ev, FILES, 0), (FILES + 2) / 3);
			for (int k = 0; k < (FILES + 2) / 3; k++) {
				int i = 0;

				while (i < FILES && data_of(i) != ev[k].data.u64)
					i++;
				CHECK(i < FILES && i % 3 == 0 && !seen[i]++);
				CHECK_EQ(ev[k].events, EPOLLIN);
			}
		}
		CHECK_EQ(write(fds[1], &n, sizeof n), sizeof n);
		CHECK_EQ(epoll_wait(ep, ev, FILES, 0), (FILES + 2) / 3 + 1);
		CHECK_EQ(read(fds[1], &n, sizeof n), sizeof n);
		CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fds[5], ev), -1);
		CHECK_EQ(errno, EEXIST);
	}
	return done();
}
