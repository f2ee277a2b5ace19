/* io_setup: idle contexts of several sizes keep their names and their room */
#include "aio.h"

int main(void)
{
	enum { N = 4 };
	static const unsigned sizes[N] = { 1, 64, 500, 3000 };
	aio_context_t ctx[N];
	struct aio_ring *ring[N];
	int room[N];
	unsigned nr[N];
	char data[8];

	ht_init();
	int zero = open("/dev/zero", O_RDONLY);
	aio_context_t gone = aio_setup(10);
	for (int i = 0; i < N; i++) {
		ctx[i] = aio_setup(sizes[i]);
		ring[i] = (struct aio_ring *)ctx[i];
		room[i] = aio_room(ctx[i]);
		nr[i] = ring[i]->nr;
	}
	CHECK_EQ(syscall(SYS_io_destroy, gone), 0); /* which was the first in the kernel's table */
	while (point()) {
		CHECK_EQ(syscall(SYS_io_destroy, gone), -1);
		CHECK_EQ(errno, EINVAL);
		for (int i = 0; i < N; i++) {
			struct iocb read = aio_request(IOCB_CMD_PREAD, zero, data, sizeof data, 9 + i);

			aio_empty(ctx[i]);
			for (int k = 0; k < 200; k++) {
				aio_submit(ctx[i], &read);
				aio_expect(ctx[i], &read, sizeof data);
			}
			CHECK_EQ(ring[i]->nr, nr[i]);
			CHECK_EQ(aio_room(ctx[i]), room[i]);
			aio_empty(ctx[i]);
		}
	}
	for (int i = 0; i < N; i++)
		CHECK_EQ(syscall(SYS_io_destroy, ctx[i]), 0);
	return done();
}
