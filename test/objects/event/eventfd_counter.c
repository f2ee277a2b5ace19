/* eventfd: a counter of 64 bits, up to the greatest, and O_NONBLOCK */
#include "../object.h"
#include <poll.h>
#include <sys/eventfd.h>

static void expect(int fd, uint64_t want)
{
	uint64_t n;

	CHECK_EQ(read(fd, &n, sizeof n), sizeof n);
	CHECK_EQ(n, want);
	CHECK_EQ(write(fd, &n, sizeof n), sizeof n);
}

int main(void)
{
	const uint64_t big = 0x123456789abcdef0, full = UINT64_MAX - 1, one = 1;
	uint64_t n;

	ht_init();
	int empty = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int counter = eventfd(0, 0);
	int greatest = eventfd(0, EFD_NONBLOCK);
	CHECK_EQ(write(counter, &big, sizeof big), sizeof big);
	CHECK_EQ(write(greatest, &full, sizeof full), sizeof full);
	while (point()) {
		struct pollfd p = { greatest, POLLIN | POLLOUT, 0 };

		CHECK_EQ(fcntl(empty, F_GETFL), O_RDWR | O_NONBLOCK);
		CHECK_EQ(fcntl(counter, F_GETFL), O_RDWR);
		CHECK_EQ(fcntl(empty, F_GETFD), FD_CLOEXEC);
		CHECK_EQ(fcntl(counter, F_GETFD), 0);
		CHECK_EQ(read(empty, &n, sizeof n), -1);
		CHECK_EQ(errno, EAGAIN);
		CHECK_EQ(poll(&p, 1, 0), 1);
		CHECK_EQ(p.revents, POLLIN);
		CHECK_EQ(write(greatest, &one, sizeof one), -1);
		CHECK_EQ(errno, EAGAIN);
		expect(counter, big);
		expect(greatest, full);
	}
	return done();
}
