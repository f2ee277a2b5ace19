/* io_getevents: a thread that waits goes on waiting */
#include "aio.h"
#include <pthread.h>

static aio_context_t ctx;
static struct iocb one;

static void *waiter(void *arg)
{
	aio_expect(ctx, &one, 4);
	return arg;
}

int main(void)
{
	pthread_t t;
	char data[4];

	ht_init();
	int zero = open("/dev/zero", O_RDONLY);
	ctx = aio_setup(20);
	one = aio_request(IOCB_CMD_PREAD, zero, data, sizeof data, 3);
	CHECK_EQ(pthread_create(&t, NULL, waiter, NULL), 0);
	while (point()) {
		CHECK_EQ(pthread_tryjoin_np(t, NULL), EBUSY);
		aio_submit(ctx, &one);
		CHECK_EQ(pthread_join(t, NULL), 0);
		aio_empty(ctx);
		CHECK_EQ(pthread_create(&t, NULL, waiter, NULL), 0);
	}
	return done();
}
