/* 900 descriptors with gaps between their numbers */
#include "file.h"

enum { N = 900 };

int main(void)
{
	ht_init();
	int first = make("f", O_RDWR, "0123456789");
	int top = open(ht_path("f"), O_RDONLY);
	CHECK_EQ(dup2(top, 1023), 1023);
	for (int i = 0; i < N; i++) {
		int fd = open(ht_path("f"), O_RDONLY);
		CHECK(fd > first);
		CHECK_EQ(lseek(fd, fd, SEEK_SET), fd);
	}
	for (int fd = first + 2; fd < first + N; fd += 3)
		close(fd);
	while (point())
		for (int fd = first + 2; fd < first + N; fd++) {
			off_t at = lseek(fd, 0, SEEK_CUR);
			if ((fd - first - 2) % 3)
				CHECK_EQ(at, fd);
			else
				CHECK(at < 0 && errno == EBADF);
		}
	return done();
}
