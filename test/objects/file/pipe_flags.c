/* O_NONBLOCK of one end only, close-on-exec, both ends closed by others */
#include "file.h"
#include <poll.h>

int main(void)
{
	int p[2], r[2], w[2], fl[2];
	char b;

	ht_init();
	CHECK(pipe(p) == 0 && pipe(r) == 0 && pipe2(w, O_CLOEXEC) == 0);
	CHECK(fcntl(p[0], F_SETFL, O_NONBLOCK) == 0);
	fl[0] = fcntl(p[0], F_GETFL);
	fl[1] = fcntl(p[1], F_GETFL);
	close(r[1]);
	close(w[0]);
	signal(SIGPIPE, SIG_IGN);
	while (point()) {
		CHECK_EQ(fcntl(p[0], F_GETFL), fl[0]);
		CHECK_EQ(fcntl(p[1], F_GETFL), fl[1]);
		CHECK(read(p[0], &b, 1) < 0 && errno == EAGAIN);
		CHECK_EQ(read(r[0], &b, 1), 0);
		CHECK(write(w[1], &b, 1) < 0 && errno == EPIPE);
		CHECK_EQ(fcntl(w[1], F_GETFD), FD_CLOEXEC);
		struct pollfd fds[2] = { { r[0], POLLIN, 0 }, { w[1], POLLOUT, 0 } };
		CHECK_EQ(poll(fds, 2, 0), 2);
		CHECK_EQ(fds[0].revents, POLLHUP);
		CHECK(fds[1].revents & POLLERR);
	}
	return done();
}
