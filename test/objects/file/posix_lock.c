/* POSIX locks of two processes: ranges, kinds, and who holds them */
#include "file.h"

static int fd;

static struct flock range(short type, off_t start, off_t len)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
}

static void check(void)
{
	struct flock l = range(F_WRLCK, 0, 10);

	CHECK(fcntl(fd, F_GETLK, &l) == 0);
	CHECK_EQ(l.l_type, F_WRLCK);
	CHECK_EQ(l.l_start, 2);
	CHECK_EQ(l.l_len, 3);
	CHECK_EQ(l.l_pid, getppid());
	l = range(F_WRLCK, 100, 0);
	CHECK(fcntl(fd, F_SETLK, &l) == 0);
}

int main(void)
{
	ht_init();
	fd = make("f", O_RDWR, "");
	struct flock w = range(F_WRLCK, 2, 3), r = range(F_RDLCK, 50, 10);
	CHECK(fcntl(fd, F_SETLK, &w) == 0 && fcntl(fd, F_SETLK, &r) == 0);
	struct peer p = fork_peer(check);
	peer_checks(&p);
	while (point()) {
		struct flock l = range(F_RDLCK, 60, 0);
		CHECK(fcntl(fd, F_GETLK, &l) == 0);
		CHECK_EQ(l.l_type, F_WRLCK);
		CHECK_EQ(l.l_start, 100);
		CHECK_EQ(l.l_len, 0);
		CHECK_EQ(l.l_pid, p.pid);
		peer_checks(&p);
	}
	peer_ends(&p);
	return done();
}
