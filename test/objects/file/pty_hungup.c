/* a slave whose master is closed */
#include "file.h"
#include <termios.h>

int main(void)
{
	char b;
	struct termios t;

	ht_init();
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	CHECK(slave >= 0);
	close(master);
	while (point()) {
		CHECK_EQ(read(slave, &b, 1), 0);
		CHECK(write(slave, &b, 1) < 0 && errno == EIO);
		CHECK(tcgetattr(slave, &t) < 0 && errno == EIO);
	}
	return done();
}
