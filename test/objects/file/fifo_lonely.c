/* a FIFO whose reader no writer has joined yet, and a blocked open of one */
#include "file.h"
#include <poll.h>
#include <pthread.h>

static void *opens(void *arg)
{
	char b[8];
	int fd = open(ht_path("other"), O_RDONLY);

	(void)arg;
	CHECK(fd >= 0);
	CHECK_EQ(read(fd, b, sizeof b), 5);
	return NULL;
}

int main(void)
{
	pthread_t t;

	ht_init();
	CHECK(mkfifo(ht_path("fifo"), 0600) == 0 && mkfifo(ht_path("other"), 0600) == 0);
	int r = open(ht_path("fifo"), O_RDONLY | O_NONBLOCK);
	CHECK(r >= 0 && pthread_create(&t, NULL, opens, NULL) == 0);
	while (point()) {
		struct pollfd p = { r, POLLIN, 0 };
		CHECK_EQ(poll(&p, 1, 0), 0);
	}
	int w = open(ht_path("other"), O_WRONLY);
	CHECK_EQ(write(w, "hello", 5), 5);
	CHECK(pthread_join(t, NULL) == 0);
	return done();
}
