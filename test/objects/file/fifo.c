/* a FIFO by its name: content, capacity, ends in two processes */
#include "file.h"

static void check(void)
{
	int w = open(ht_path("fifo"), O_WRONLY | O_NONBLOCK);

	CHECK(w >= 0);
	CHECK_EQ(write(w, "more", 4), 4);
	close(w);
}

int main(void)
{
	char b[16];

	ht_init();
	CHECK(mkfifo(ht_path("fifo"), 0640) == 0);
	int r = open(ht_path("fifo"), O_RDONLY | O_NONBLOCK), w = open(ht_path("fifo"), O_WRONLY);
	CHECK(r >= 0 && w >= 0);
	CHECK_EQ(fcntl(w, F_SETPIPE_SZ, 16384), 16384);
	struct peer p = fork_peer(check);
	CHECK_EQ(write(w, "queued", 6), 6);
	while (point()) {
		link_is(r, ht_path("fifo"));
		CHECK_EQ(fcntl(r, F_GETPIPE_SZ), 16384);
		peer_checks(&p);
		CHECK_EQ(read(r, b, sizeof b), 10);
		CHECK(memcmp(b, "queuedmore", 10) == 0);
		CHECK(read(r, b, 1) < 0 && errno == EAGAIN);
		CHECK_EQ(write(w, "queued", 6), 6);
	}
	peer_ends(&p);
	return done();
}
