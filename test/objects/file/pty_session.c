/* a session with a controlling pty: foreground group, /dev/tty, SIGINT by ^C */
#include "file.h"
#include <sys/ioctl.h>
#include <termios.h>

static volatile sig_atomic_t interrupts;
static char name[64];
static int slave, tty;

static void interrupted(int sig) { (void)sig; interrupts++; }

static void check(void)
{
	static int begun;

	if (!begun++) {
		struct sigaction a = { .sa_handler = interrupted, .sa_flags = SA_RESTART };
		CHECK(sigaction(SIGINT, &a, NULL) == 0);
		CHECK(setsid() == getpid());
		slave = open(name, O_RDWR);
		tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
		CHECK(slave >= 0 && tty >= 0);
		return;
	}
	CHECK_EQ(tcgetsid(slave), getpid());
	CHECK_EQ(tcgetpgrp(slave), getpid());
	int again = open("/dev/tty", O_RDWR | O_CLOEXEC);
	CHECK(again >= 0);
	CHECK_EQ(write(again, "+", 1), 1);
	close(again);
	CHECK_EQ(write(tty, "-", 1), 1);
}

int main(void)
{
	char b[64];

	ht_init();
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	strcpy(name, ptsname(master));
	struct peer p = fork_peer(check);
	peer_checks(&p);
	while (point()) {
		peer_checks(&p);
		for (int n = 0; n < 2;) {
			int got = read(master, b + n, sizeof b - n);
			CHECK(got > 0);
			n += got;
		}
		CHECK(memcmp(b, "+-", 2) == 0);
		CHECK_EQ(tcgetsid(master), p.pid);
		CHECK_EQ(tcgetpgrp(master), p.pid);
	}
	CHECK_EQ(write(master, "\003", 1), 1);
	peer_checks(&p);
	CHECK(kill(p.pid, 0) == 0);
	peer_ends(&p);
	return done();
}
