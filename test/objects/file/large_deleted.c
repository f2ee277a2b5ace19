/* a deleted sparse file of more than 4 GiB: data, holes and size */
#include "file.h"

int main(void)
{
	const off_t at[] = { 1 << 20, 1LL << 32, (5LL << 30) + 4096 };

	ht_init();
	int fd = make("f", O_RDWR, "");
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pwrite(fd, "data", 4, at[i]), 4);
	CHECK(ftruncate(fd, 6LL << 30) == 0);
	CHECK_EQ(lseek(fd, at[2], SEEK_SET), at[2]);
	CHECK(unlink(ht_path("f")) == 0);
	while (point()) {
		char b[8] = "";
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), at[2]);
		CHECK_EQ(stat_of(fd).st_size, 6LL << 30);
		CHECK(stat_of(fd).st_blocks < 1000);
		for (int i = 0; i < 3; i++) {
			CHECK_EQ(pread(fd, b, 4, at[i]), 4);
			CHECK(memcmp(b, "data", 4) == 0);
			CHECK_EQ(lseek(fd, at[i] - 4096, SEEK_DATA) & -4096, at[i] & -4096);
		}
		CHECK_EQ(lseek(fd, at[2], SEEK_SET), at[2]);
	}
	return done();
}
