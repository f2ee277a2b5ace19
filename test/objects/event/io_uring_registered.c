/* io_uring_registered: a ring that a thread knows by a number of its own, and nothing else shows
 * refused: IORING_REGISTER_RING_FDS
 */
#include "../object.h"
#include <linux/io_uring.h>

int main(void)
{
	struct io_uring_params p = { 0 };

	ht_init();
	int fd = syscall(SYS_io_uring_setup, 4, &p);
	struct io_uring_rsrc_update ring = { .offset = 3, .data = fd };
	CHECK(fd >= 0);
	CHECK_EQ(syscall(SYS_io_uring_register, fd, IORING_REGISTER_RING_FDS, &ring, 1), 1);
	CHECK_EQ(close(fd), 0);
	while (point())
		CHECK_EQ(syscall(SYS_io_uring_enter, 3, 0, 0, IORING_ENTER_REGISTERED_RING, NULL, 0), 0);
	return done();
}
