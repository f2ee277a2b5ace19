/* io_uring: a ring, its memory and that of one that is closed
 * refused: io_uring(7)
 */
#include "../object.h"
#include <linux/io_uring.h>
#include <sys/mman.h>

int main(void)
{
	struct io_uring_params p = { 0 };

	ht_init();
	int fd = syscall(SYS_io_uring_setup, 4, &p);
	CHECK(fd >= 0);
	void *ring = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	CHECK(ring != MAP_FAILED);
	int closed = syscall(SYS_io_uring_setup, 4, &p);
	ring = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, closed, IORING_OFF_SQES);
	CHECK(ring != MAP_FAILED && close(closed) == 0);
	while (point())
		CHECK_EQ(syscall(SYS_io_uring_enter, fd, 0, 0, 0, NULL, 0), 0);
	return done();
}
