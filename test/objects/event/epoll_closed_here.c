/* epoll: a registered file that only another process still has open */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/wait.h>

int main(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 7 };
	int p[2], order[2];
	char c;

	ht_init();
	CHECK_EQ(pipe(p), 0);
	CHECK_EQ(pipe(order), 0);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev), 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) { /* reads a byte when told to */
		close(ep);
		close(p[1]);
		close(order[1]);
		while (read(order[0], &c, 1) == 1)
			CHECK_EQ(read(p[0], &c, 1), 1);
		_exit(0);
	}
	int gone = p[0];
	close(gone);
	close(order[0]);
	while (point()) {
		CHECK_EQ(fcntl(gone, F_GETFD), -1);
		CHECK_EQ(write(p[1], "x", 1), 1);
		CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
		CHECK_EQ(ev.data.u64, 7);
		CHECK_EQ(write(order[1], "r", 1), 1);
		while (epoll_wait(ep, &ev, 1, 0) == 1) /* until the child has read it */
			ht_nap(1);
	}
	close(order[1]);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0); /* the file is gone, and with it the registration */
	return done();
}
