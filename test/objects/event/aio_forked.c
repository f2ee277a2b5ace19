/* fork: a child has the ring of its parent, but no context */
#include "aio.h"
#include <sys/mman.h>
#include <sys/wait.h>

int main(void)
{
	int go[2], back[2];
	char data[8], c;

	ht_init();
	CHECK(pipe(go) == 0 && pipe(back) == 0);
	int zero = open("/dev/zero", O_RDONLY);
	aio_context_t ctx = aio_setup(30);
	pid_t child = fork();
	if (child == 0) {
		close(go[1]);
		while (read(go[0], &c, 1) == 1) {
			struct aio_ring *ring = (struct aio_ring *)ctx;
			struct io_event ev;

			CHECK_EQ(syscall(SYS_io_getevents, ctx, 0, 1, &ev, NULL), -1);
			CHECK_EQ(errno, EINVAL);
			CHECK_EQ(ring->magic, 0xa10a10a1);
			CHECK_EQ(write(back[1], &c, 1), 1);
		}
		_exit(0);
	}
	while (point()) {
		struct iocb read_zero = aio_request(IOCB_CMD_PREAD, zero, data, sizeof data, 9);

		CHECK_EQ(write(go[1], "", 1), 1);
		CHECK_EQ(read(back[0], &c, 1), 1);
		aio_submit(ctx, &read_zero);
		aio_expect(ctx, &read_zero, sizeof data);
	}
	close(go[1]);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	return done();
}
