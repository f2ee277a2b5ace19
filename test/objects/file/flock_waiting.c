/* a thread that waits for a flock(2) lock which another description holds */
#include "file.h"
#include <pthread.h>
#include <sys/file.h>

static int waiter, got;

static void *waits(void *arg)
{
	(void)arg;
	CHECK(flock(waiter, LOCK_EX) == 0);
	__atomic_store_n(&got, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

int main(void)
{
	pthread_t t;

	ht_init();
	int fd = make("f", O_RDWR, "");
	waiter = open(ht_path("f"), O_RDWR);
	CHECK(flock(fd, LOCK_EX) == 0 && pthread_create(&t, NULL, waits, NULL) == 0);
	while (point()) {
		CHECK(!__atomic_load_n(&got, __ATOMIC_SEQ_CST));
		CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
	}
	CHECK(flock(fd, LOCK_UN) == 0 && pthread_join(t, NULL) == 0 && got);
	return done();
}
