/* leases for reading and writing, and that one of them is broken with a signal */
#include "file.h"

int main(void)
{
	sigset_t set;
	siginfo_t info;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	close(make("r", O_RDWR, "content"));
	int r = open(ht_path("r"), O_RDONLY), w = make("w", O_RDWR, "content");
	CHECK(fcntl(r, F_SETSIG, SIGRTMIN) == 0 && fcntl(w, F_SETSIG, SIGRTMIN) == 0);
	CHECK(fcntl(r, F_SETLEASE, F_RDLCK) == 0 && fcntl(w, F_SETLEASE, F_WRLCK) == 0);
	while (point()) {
		CHECK_EQ(fcntl(r, F_GETLEASE), F_RDLCK);
		CHECK_EQ(fcntl(w, F_GETLEASE), F_WRLCK);
		CHECK(open(ht_path("w"), O_RDONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK);
		struct timespec limit = { 10, 0 };
		CHECK_EQ(sigtimedwait(&set, &info, &limit), SIGRTMIN);
		CHECK_EQ(info.si_fd, w);
		CHECK(fcntl(w, F_SETLEASE, F_UNLCK) == 0);
		/* That has reset the owner and the signal. */
		CHECK(fcntl(w, F_SETSIG, SIGRTMIN) == 0 && fcntl(w, F_SETLEASE, F_WRLCK) == 0);
	}
	return done();
}
