/* a sparse file of more than 4 GiB: size, offset, data at both ends */
#include "file.h"

int main(void)
{
	const off_t end = 5LL << 30;

	ht_init();
	int fd = make("f", O_RDWR, "begin");
	CHECK_EQ(pwrite(fd, "end", 3, end), 3);
	CHECK_EQ(lseek(fd, end + 1, SEEK_SET), end + 1);
	blkcnt_t blocks = stat_of(fd).st_blocks;
	while (point()) {
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), end + 1);
		CHECK_EQ(stat_of(fd).st_size, end + 3);
		CHECK_EQ(stat_of(fd).st_blocks, blocks);
		reads(fd, end, "end");
	}
	CHECK(ftruncate(fd, 0) == 0);
	return done();
}
