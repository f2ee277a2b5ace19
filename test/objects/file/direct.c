/* O_DIRECT: flag, offset, aligned reads and writes */
#include "file.h"

int main(void)
{
	void *b;
	char turn = 'a';

	ht_init();
	CHECK(posix_memalign(&b, 4096, 8192) == 0);
	memset(b, turn, 8192);
	int fd = open(ht_path("f"), O_RDWR | O_CREAT | O_DIRECT, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, b, 8192), 8192);
	while (point()) {
		CHECK(fcntl(fd, F_GETFL) & O_DIRECT);
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), 8192);
		CHECK_EQ(pread(fd, b, 8192, 0), 8192);
		CHECK(((char *)b)[0] == turn && ((char *)b)[8191] == turn);
		memset(b, ++turn, 8192);
		CHECK_EQ(pwrite(fd, b, 8192, 0), 8192);
	}
	return done();
}
