/* a master alone: of a slave never opened, locked; of one that was closed */
#include "file.h"
#include <poll.h>
#include <sys/ioctl.h>

int main(void)
{
	char b;
	int locked;

	ht_init();
	int fresh = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK), left = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
	CHECK(fresh >= 0 && left >= 0 && unlockpt(left) == 0);
	int slave = open(ptsname(left), O_RDWR | O_NOCTTY);
	CHECK(slave >= 0);
	close(slave);
	while (point()) {
		CHECK(ioctl(fresh, TIOCGPTLCK, &locked) == 0 && locked == 1);
		CHECK(ioctl(left, TIOCGPTLCK, &locked) == 0 && locked == 0);
		CHECK(read(fresh, &b, 1) < 0 && errno == EAGAIN);
		CHECK(read(left, &b, 1) < 0 && errno == EIO);
		struct pollfd p[2] = { { fresh, POLLIN, 0 }, { left, POLLIN, 0 } };
		CHECK_EQ(poll(p, 2, 0), 1);
		CHECK(p[1].revents & POLLHUP);
	}
	return done();
}
