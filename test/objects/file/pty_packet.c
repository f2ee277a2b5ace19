/* a pty in packet mode */
#include "file.h"
#include <sys/ioctl.h>
#include <termios.h>

int main(void)
{
	char b[64];
	int on = 1, slave;

	ht_init();
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
	CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	CHECK((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
	CHECK(ioctl(master, TIOCPKT, &on) == 0);
	CHECK_EQ(write(slave, "shown", 5), 5);
	while (point()) {
		CHECK(ioctl(master, TIOCGPKT, &on) == 0 && on == 1);
		CHECK_EQ(read(master, b, sizeof b), 6);
		CHECK(b[0] == TIOCPKT_DATA && memcmp(b + 1, "shown", 5) == 0);
		CHECK(tcflush(slave, TCIFLUSH) == 0);
		CHECK_EQ(read(master, b, sizeof b), 1);
		CHECK_EQ(b[0], TIOCPKT_FLUSHREAD);
		CHECK_EQ(write(slave, "shown", 5), 5);
	}
	return done();
}
