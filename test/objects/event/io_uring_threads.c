/* io_uring_threads: the threads of the kernel that poll a ring and that make a
 * request which waits
 * refused: it is the kernel's own
 */
#include "../object.h"
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/mman.h>

/* ring_at returns one part of a ring's memory. */
static void *ring_at(int fd, size_t len, off_t part)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, part);
	CHECK(at != MAP_FAILED);
	return at;
}

/* read_beside has a thread of the kernel wait for data in a pipe. */
static void read_beside(int fd, char *to)
{
	struct io_uring_params p = { 0 };
	int ring = syscall(SYS_io_uring_setup, 4, &p);
	CHECK(ring >= 0);
	char *queue = ring_at(ring, p.sq_off.array + p.sq_entries * 4, IORING_OFF_SQ_RING);
	struct io_uring_sqe *e = ring_at(ring, p.sq_entries * sizeof *e, IORING_OFF_SQES);
	*e = (struct io_uring_sqe){ .opcode = IORING_OP_READ, .flags = IOSQE_ASYNC, .fd = fd, .addr = (uintptr_t)to, .len = 1 };
	*(unsigned *)(queue + p.sq_off.array) = 0;
	__atomic_store_n((unsigned *)(queue + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	CHECK_EQ(syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0), 1);
}

int main(void)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 10 };
	int ends[2];
	char got = 0;

	ht_init();
	CHECK(syscall(SYS_io_uring_setup, 4, &p) >= 0);
	CHECK_EQ(pipe(ends), 0);
	read_beside(ends[0], &got);
	while (point())
		CHECK_EQ(got, 0);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	while (!*(volatile char *)&got)
		sched_yield();
	return done();
}
