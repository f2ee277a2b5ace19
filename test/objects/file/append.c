/* O_APPEND: each write goes to the end, whatever the offset */
#include "file.h"

int main(void)
{
	char want[64] = "begin";

	ht_init();
	int fd = make("f", O_RDWR | O_APPEND, "begin");
	while (point()) {
		CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
		CHECK_EQ(write(fd, "+", 1), 1);
		strcat(want, "+");
		reads(fd, 0, want);
	}
	return done();
}
