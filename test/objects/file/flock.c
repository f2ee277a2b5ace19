/* flock(2): exclusive and shared, the lock of a child that shares it */
#include "file.h"
#include <sys/file.h>

static int fd;

static void check(void)
{
	/* The same description: the child may convert the lock. */
	CHECK(flock(fd, LOCK_SH | LOCK_NB) == 0);
	CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
}

int main(void)
{
	ht_init();
	fd = make("f", O_RDWR, "");
	close(make("g", O_RDWR, ""));
	int shared = open(ht_path("g"), O_RDONLY);
	CHECK(flock(fd, LOCK_EX) == 0 && flock(shared, LOCK_SH) == 0);
	struct peer p = fork_peer(check);
	while (point()) {
		int other = open(ht_path("f"), O_RDWR), third = open(ht_path("g"), O_RDWR);
		CHECK(flock(other, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK);
		CHECK(flock(third, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
		CHECK(flock(third, LOCK_SH | LOCK_NB) == 0);
		close(other);
		close(third);
		peer_checks(&p);
	}
	peer_ends(&p);
	return done();
}
