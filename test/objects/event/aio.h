/* asynchronous I/O without a library, io_setup(2) */
#ifndef AIO_H
#define AIO_H

#include "../object.h"
#include <linux/aio_abi.h>
#include <poll.h>
#include <sched.h>

struct aio_ring {
	unsigned id, nr, head, tail, magic, compat, incompat, header;
	struct io_event events[];
};

static inline aio_context_t aio_setup(unsigned n)
{
	aio_context_t ctx = 0;

	CHECK_EQ(syscall(SYS_io_setup, n, &ctx), 0);
	return ctx;
}

static inline struct iocb aio_request(int op, int fd, void *buf, size_t size, uint64_t data)
{
	return (struct iocb){ .aio_lio_opcode = op, .aio_fildes = fd, .aio_buf = (uintptr_t)buf, .aio_nbytes = size, .aio_data = data };
}

static inline void aio_submit(aio_context_t ctx, struct iocb *one)
{
	CHECK_EQ(syscall(SYS_io_submit, ctx, 1, &one), 1);
}

/* aio_expect takes one event. */
static inline void aio_expect(aio_context_t ctx, struct iocb *of, int64_t res)
{
	struct io_event ev;

	CHECK_EQ(syscall(SYS_io_getevents, ctx, 1, 1, &ev, NULL), 1);
	CHECK_EQ(ev.data, of->aio_data);
	CHECK_EQ(ev.obj, (uintptr_t)of);
	CHECK_EQ(ev.res, res);
	CHECK_EQ(ev.res2, 0);
}

/* aio_empty makes sure that no event waits. */
static inline void aio_empty(aio_context_t ctx)
{
	struct timespec none = { 0, 0 };
	struct io_event ev;

	CHECK_EQ(syscall(SYS_io_getevents, ctx, 0, 1, &ev, &none), 0);
}

/* aio_room is how many requests a context takes at all processors. */
static inline int aio_room(aio_context_t ctx)
{
	int pipes[2], room = 0;
	cpu_set_t before;

	CHECK_EQ(pipe(pipes), 0);
	CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
	struct iocb wait = aio_request(IOCB_CMD_POLL, pipes[0], (void *)POLLIN, 0, 1), *list[] = { &wait };
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t one;

		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (CPU_ISSET(cpu, &before) && sched_setaffinity(0, sizeof one, &one) == 0)
			while (syscall(SYS_io_submit, ctx, 1, list) == 1)
				room++;
	}
	CHECK_EQ(sched_setaffinity(0, sizeof before, &before), 0);
	CHECK_EQ(write(pipes[1], "", 1), 1);
	for (int i = 0; i < room; i++)
		aio_expect(ctx, &wait, POLLIN | POLLRDNORM);
	close(pipes[0]);
	close(pipes[1]);
	return room;
}

#endif
