/* duplicates and children share one offset, a second open has its own */
#include "file.h"

static int fd;

static void check(void)
{
	char c;

	CHECK_EQ(read(fd, &c, 1), 1);
	CHECK(c == '3');
}

int main(void)
{
	ht_init();
	fd = make("f", O_RDWR, "0123456789");
	int other = open(ht_path("f"), O_RDONLY), copy = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	CHECK(copy >= 100);
	CHECK_EQ(lseek(other, 7, SEEK_SET), 7);
	struct peer p = fork_peer(check);
	while (point()) {
		CHECK_EQ(lseek(copy, 3, SEEK_SET), 3);
		peer_checks(&p);
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
		CHECK_EQ(lseek(other, 0, SEEK_CUR), 7);
		CHECK_EQ(fcntl(copy, F_GETFD), FD_CLOEXEC);
	}
	peer_ends(&p);
	return done();
}
