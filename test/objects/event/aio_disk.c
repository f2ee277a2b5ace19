/* io_submit: reads and writes of a file that are under way end before the program is kept */
#include "aio.h"
#include <pthread.h>

enum { DEPTH = 32, SIZE = 64 << 10 };

static aio_context_t ctx;
static int fd;
static volatile int stop;

/* churn keeps requests under way all the time, and counts what comes back. */
static void *churn(void *arg)
{
	static struct iocb io[DEPTH];
	static char *buf[DEPTH];
	struct io_event ev[DEPTH];
	uint64_t round[DEPTH] = { 0 };
	int out = 0;

	for (int i = 0; i < DEPTH; i++) {
		CHECK_EQ(posix_memalign((void **)&buf[i], 4096, SIZE), 0);
		memset(buf[i], 0, SIZE);
		io[i] = aio_request(IOCB_CMD_PWRITE, fd, buf[i], SIZE, i);
		io[i].aio_offset = (int64_t)i * SIZE;
		aio_submit(ctx, &io[i]);
		out++;
	}
	while (out) {
		int n = syscall(SYS_io_getevents, ctx, 1, DEPTH, ev, NULL);

		CHECK(n >= 1);
		for (int k = 0; k < n; k++) {
			int i = ev[k].data;

			CHECK(i < DEPTH);
			CHECK_EQ(ev[k].obj, (uintptr_t)&io[i]);
			CHECK_EQ(ev[k].res, SIZE);
			out--;
			if (stop)
				continue;
			uint64_t *word = (uint64_t *)buf[i];
			if (io[i].aio_lio_opcode == IOCB_CMD_PWRITE) {
				memset(buf[i], 0, SIZE);
				io[i].aio_lio_opcode = IOCB_CMD_PREAD;
			} else {
				for (int w = 0; w < SIZE / 8; w++)
					CHECK_EQ(word[w], round[i]);
				round[i]++;
				for (int w = 0; w < SIZE / 8; w++)
					word[w] = round[i];
				io[i].aio_lio_opcode = IOCB_CMD_PWRITE;
			}
			aio_submit(ctx, &io[i]);
			out++;
		}
	}
	return arg;
}

int main(void)
{
	pthread_t t;

	ht_init();
	fd = open(ht_path("data"), O_RDWR | O_CREAT | O_DIRECT, 0600);
	CHECK(fd >= 0);
	ctx = aio_setup(DEPTH);
	int room = aio_room(ctx);
	for (int first = 1; first || point(); first = 0) {
		if (!first) {
			stop = 1;
			CHECK_EQ(pthread_join(t, NULL), 0);
			aio_empty(ctx);
			CHECK_EQ(aio_room(ctx), room);
		}
		stop = 0;
		CHECK_EQ(pthread_create(&t, NULL, churn, NULL), 0);
	}
	stop = 1;
	CHECK_EQ(pthread_join(t, NULL), 0);
	return done();
}
