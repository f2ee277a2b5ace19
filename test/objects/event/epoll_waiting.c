/* epoll: threads that wait in epoll_wait, epoll_pwait and epoll_pwait2 */
#include "../object.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int ep[3], fd[3];

static void *waiter(void *arg)
{
	long i = (long)arg;
	struct timespec hour = { 3600, 0 };
	struct epoll_event ev = { 0 };
	sigset_t none;
	int n;

	sigemptyset(&none);
	switch (i) {
	case 0: n = epoll_wait(ep[i], &ev, 1, -1); break;
	case 1: n = epoll_pwait(ep[i], &ev, 1, 3600 * 1000, &none); break;
	default: n = syscall(SYS_epoll_pwait2, ep[i], &ev, 1, &hour, &none, 8); break;
	}
	CHECK_EQ(n, 1); /* and never EINTR */
	CHECK_EQ(ev.data.u64, 40 + i);
	return NULL;
}

int main(void)
{
	pthread_t t[3];
	int more;

	ht_init();
	for (int i = 0; i < 3; i++) {
		struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 40 + i };

		ep[i] = epoll_create1(0);
		fd[i] = eventfd(0, EFD_NONBLOCK);
		CHECK_EQ(epoll_ctl(ep[i], EPOLL_CTL_ADD, fd[i], &ev), 0);
	}
	do {
		uint64_t n = 1;

		for (long i = 0; i < 3; i++)
			CHECK_EQ(pthread_create(&t[i], NULL, waiter, (void *)i), 0);
		ht_nap(20); /* for them to wait; if they do not yet, nothing fails */
		more = point();
		for (int i = 0; i < 3; i++) {
			CHECK_EQ(write(fd[i], &n, sizeof n), sizeof n);
			CHECK_EQ(pthread_join(t[i], NULL), 0);
			CHECK_EQ(read(fd[i], &n, sizeof n), sizeof n);
		}
	} while (more);
	return done();
}
