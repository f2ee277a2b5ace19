/* O_ASYNC: no signal of the hang-up that was before, neither of a pipe nor of a pty */
#include "file.h"

static void signals(int fd, int signal)
{
	CHECK_EQ(fcntl(fd, F_SETSIG, signal), 0);
	CHECK_EQ(fcntl(fd, F_SETOWN, getpid()), 0);
	CHECK_EQ(fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK), 0);
}

int main(void)
{
	struct timespec none = { 0, 0 }, limit = { 10, 0 };
	siginfo_t info;
	sigset_t set;
	int p[2], w[2];
	char c;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	sigaddset(&set, SIGRTMIN + 2);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	CHECK(pipe(p) == 0 && pipe(w) == 0);
	close(p[1]);
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	CHECK(master >= 0 && unlockpt(master) == 0);
	int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	CHECK(slave >= 0);
	close(slave);
	signals(p[0], SIGRTMIN + 1);
	signals(master, SIGRTMIN + 1);
	signals(w[0], SIGRTMIN + 2);
	while (point()) {
		CHECK_EQ(sigtimedwait(&set, &info, &none), -1);
		CHECK_EQ(read(p[0], &c, 1), 0);
		CHECK(read(master, &c, 1) < 0 && errno == EIO);
		CHECK_EQ(write(w[1], "x", 1), 1);
		CHECK_EQ(sigtimedwait(&set, &info, &limit), SIGRTMIN + 2);
		CHECK_EQ(read(w[0], &c, 1), 1);
	}
	return done();
}
