/* eventfd: threads that wait in read and in write */
#include "../object.h"
#include <pthread.h>
#include <sys/eventfd.h>

static int empty, full;

static void *reader(void *unused)
{
	uint64_t n;

	CHECK_EQ(read(empty, &n, sizeof n), sizeof n);
	CHECK_EQ(n, 77);
	return unused;
}

static void *writer(void *unused)
{
	uint64_t n = 5;

	CHECK_EQ(write(full, &n, sizeof n), sizeof n);
	return unused;
}

int main(void)
{
	uint64_t n = UINT64_MAX - 1;
	pthread_t a, b;

	ht_init();
	empty = eventfd(0, 0);
	full = eventfd(0, 0);
	CHECK_EQ(write(full, &n, sizeof n), sizeof n);
	do {
		CHECK_EQ(pthread_create(&a, NULL, reader, NULL), 0);
		CHECK_EQ(pthread_create(&b, NULL, writer, NULL), 0);
		ht_nap(20); /* for them to wait; if they do not yet, nothing fails */
		int more = point();

		n = 77;
		CHECK_EQ(write(empty, &n, sizeof n), sizeof n);
		CHECK_EQ(read(full, &n, sizeof n), sizeof n);
		CHECK_EQ(n, UINT64_MAX - 1);
		CHECK_EQ(pthread_join(a, NULL), 0);
		CHECK_EQ(pthread_join(b, NULL), 0);
		CHECK_EQ(read(full, &n, sizeof n), sizeof n);
		CHECK_EQ(n, 5);
		n = UINT64_MAX - 1;
		CHECK_EQ(write(full, &n, sizeof n), sizeof n);
		if (!more)
			return done();
	} while (1);
}
