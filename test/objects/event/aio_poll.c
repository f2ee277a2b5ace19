/* io_submit: a request that waits for a file is seen, and goes on
 * refused: 2 of its requests are under way
 */
#include "aio.h"

int main(void)
{
	int pipes[2], others[2];
	char data[8];

	ht_init();
	CHECK(pipe(pipes) == 0 && pipe(others) == 0);
	int zero = open("/dev/zero", O_RDONLY);
	aio_context_t ctx = aio_setup(100);
	int room = aio_room(ctx);
	struct iocb wait = aio_request(IOCB_CMD_POLL, pipes[0], (void *)POLLIN, 0, 5), again = wait;
	struct iocb read = aio_request(IOCB_CMD_PREAD, zero, data, sizeof data, 6);
	again.aio_data = 7;
	again.aio_fildes = others[0];
	aio_submit(ctx, &wait);
	aio_submit(ctx, &again);
	aio_submit(ctx, &read);
	while (point()) {
		aio_expect(ctx, &read, sizeof data);
		aio_empty(ctx);
		CHECK_EQ(aio_room(ctx), room - 2);
		CHECK_EQ(write(pipes[1], "", 1), 1);
		aio_expect(ctx, &wait, POLLIN | POLLRDNORM);
		aio_empty(ctx);
		CHECK_EQ(write(others[1], "", 1), 1);
		aio_expect(ctx, &again, POLLIN | POLLRDNORM);
		CHECK_EQ(aio_room(ctx), room);
	}
	return done();
}
