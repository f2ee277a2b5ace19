/* a deleted file in two processes: one description and one offset */
#include "file.h"

static int fd;

static void check(void)
{
	CHECK_EQ(lseek(fd, 1, SEEK_CUR), 4);
	CHECK_EQ(pwrite(fd, "C", 1, 0), 1);
}

int main(void)
{
	ht_init();
	fd = make("f", O_RDWR, "content");
	CHECK(unlink(ht_path("f")) == 0);
	struct peer p = fork_peer(check);
	while (point()) {
		CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
		CHECK_EQ(pwrite(fd, "c", 1, 0), 1);
		peer_checks(&p);
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
		reads(fd, 0, "Content");
	}
	peer_ends(&p);
	return done();
}
