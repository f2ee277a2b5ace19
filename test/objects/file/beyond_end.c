/* an offset behind the end of a file that was truncated since */
#include "file.h"

int main(void)
{
	ht_init();
	int fd = make("f", O_RDWR, "0123456789");
	CHECK_EQ(lseek(fd, 1000000, SEEK_SET), 1000000);
	CHECK(ftruncate(fd, 3) == 0);
	while (point()) {
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1000000);
		reads(fd, 0, "012");
	}
	return done();
}
