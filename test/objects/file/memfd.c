/* memfd_create(2): name, content, holes, two descriptions, one in a child */
#include "file.h"

static int fd;

static void check(void)
{
	reads(fd, 8192, "end");
	CHECK_EQ(pwrite(fd, "C", 1, 0), 1);
}

int main(void)
{
	char name[64], c = 'c';

	ht_init();
	fd = memfd_create("na:me", MFD_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "content", 7), 7);
	CHECK_EQ(pwrite(fd, "end", 3, 8192), 3);
	CHECK(fchmod(fd, 0600) == 0);
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	int other = open(name, O_RDONLY);
	CHECK(other >= 0);
	int fl = fcntl(fd, F_GETFL), ofl = fcntl(other, F_GETFL);
	blkcnt_t blocks = stat_of(fd).st_blocks;
	struct peer p = fork_peer(check);
	while (point()) {
		link_is(fd, "/memfd:na:me (deleted)");
		CHECK(same_file(fd, other));
		CHECK_EQ(fcntl(fd, F_GETFL), fl);
		CHECK_EQ(fcntl(other, F_GETFL), ofl);
		CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
		CHECK_EQ(stat_of(fd).st_size, 8195);
		CHECK_EQ(stat_of(fd).st_blocks, blocks);
		CHECK_EQ(stat_of(fd).st_mode & 07777, 0600);
		CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
		CHECK_EQ(pwrite(fd, &c, 1, 0), 1);
		peer_checks(&p);
		char b[8] = "";
		CHECK_EQ(pread(other, b, 7, 0), 7);
		CHECK(strcmp(b, "Content") == 0);
	}
	peer_ends(&p);
	return done();
}
