/* io_setup: a context, which goes on working
 * refused: io_setup(2)
 */
#include "../object.h"
#include <linux/aio_abi.h>

int main(void)
{
	aio_context_t ctx = 0;
	char data[8];

	ht_init();
	CHECK_EQ(syscall(SYS_io_setup, 4, &ctx), 0);
	int zero = open("/dev/zero", O_RDONLY);
	while (point()) {
		struct iocb read = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = zero, .aio_buf = (uintptr_t)data, .aio_nbytes = sizeof data,
			.aio_data = 9 }, *list[] = { &read };
		struct io_event ev;

		CHECK_EQ(syscall(SYS_io_submit, ctx, 1, list), 1);
		CHECK_EQ(syscall(SYS_io_getevents, ctx, 1, 1, &ev, NULL), 1);
		CHECK_EQ(ev.data, 9);
		CHECK_EQ(ev.res, sizeof data);
	}
	CHECK_EQ(syscall(SYS_io_destroy, ctx), 0);
	return done();
}
