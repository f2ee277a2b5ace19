/* a pty: number, settings, size, exclusive mode, unread data both ways */
#include "file.h"
#include <sys/ioctl.h>
#include <termios.h>

static void fill(int master, int slave)
{
	CHECK_EQ(write(master, "typed\n", 6), 6);
	CHECK_EQ(write(slave, "shown", 5), 5);
}

int main(void)
{
	char name[64], b[64];
	struct termios t, u;
	struct winsize w = { 33, 101, 7, 9 }, v;

	ht_init();
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
	CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	strcpy(name, ptsname(master));
	int slave = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
	CHECK(slave >= 0 && tcgetattr(slave, &t) == 0);
	t.c_lflag &= ~ECHO;
	t.c_oflag &= ~OPOST;
	t.c_cc[VINTR] = 7;
	cfsetspeed(&t, B9600);
	CHECK(tcsetattr(slave, TCSANOW, &t) == 0 && ioctl(slave, TIOCSWINSZ, &w) == 0 && ioctl(slave, TIOCEXCL) == 0);
	fill(master, slave);
	while (point()) {
		int excl = 0;
		CHECK(strcmp(name, ptsname(master)) == 0);
		link_is(slave, name);
		CHECK(tcgetattr(slave, &u) == 0 && memcmp(&t, &u, sizeof t) == 0);
		CHECK(ioctl(master, TIOCGWINSZ, &v) == 0 && memcmp(&v, &w, sizeof w) == 0);
		CHECK(ioctl(slave, TIOCGEXCL, &excl) == 0 && excl);
		CHECK_EQ(read(slave, b, sizeof b), 6);
		CHECK(memcmp(b, "typed\n", 6) == 0);
		CHECK_EQ(read(master, b, sizeof b), 5);
		CHECK(memcmp(b, "shown", 5) == 0);
		CHECK(read(master, b, 1) < 0 && errno == EAGAIN);
		fill(master, slave);
	}
	return done();
}
