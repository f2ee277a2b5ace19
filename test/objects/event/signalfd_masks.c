/* signalfd: the set of each, O_NONBLOCK, a set that was changed */
#include "../object.h"
#include <poll.h>
#include <sys/signalfd.h>

static int masks_of(int fd, const char *want)
{
	char path[64], text[512] = "", *at;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	int f = open(path, O_RDONLY);
	CHECK(f >= 0 && read(f, text, sizeof text - 1) > 0);
	close(f);
	at = strstr(text, "sigmask:\t");
	return at && strncmp(at + 9, want, 16) == 0;
}

int main(void)
{
	struct signalfd_siginfo info;
	sigset_t one, all, two;

	ht_init();
	sigemptyset(&one);
	sigaddset(&one, SIGHUP);
	sigemptyset(&two);
	sigaddset(&two, SIGURG);
	sigaddset(&two, SIGRTMAX);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &two, NULL);
	int first = signalfd(-1, &one, SFD_CLOEXEC);
	int second = signalfd(-1, &all, SFD_NONBLOCK);
	int changed = signalfd(-1, &one, SFD_NONBLOCK);
	CHECK_EQ(signalfd(changed, &two, 0), changed);
	while (point()) {
		CHECK_EQ(fcntl(first, F_GETFL) & O_NONBLOCK, 0);
		CHECK_EQ(fcntl(second, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
		CHECK_EQ(fcntl(first, F_GETFD), FD_CLOEXEC);
		CHECK(masks_of(first, "0000000000000001"));
		CHECK(masks_of(changed, "8000000000400000"));
		CHECK_EQ(kill(getpid(), SIGRTMAX), 0);
		struct pollfd p[] = { { first, POLLIN, 0 }, { second, POLLIN, 0 }, { changed, POLLIN, 0 } };
		CHECK_EQ(poll(p, 3, 0), 2);
		CHECK_EQ(p[0].revents, 0);
		CHECK_EQ(read(changed, &info, sizeof info), sizeof info);
		CHECK_EQ(info.ssi_signo, SIGRTMAX);
		CHECK_EQ(read(second, &info, sizeof info), -1);
		CHECK_EQ(errno, EAGAIN);
	}
	return done();
}
