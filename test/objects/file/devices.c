/* null, zero, full, random and urandom */
#include "file.h"
#include <sys/sysmacros.h>

int main(void)
{
	static const char *names[] = { "null", "zero", "full", "random", "urandom" };
	static const unsigned minors[] = { 3, 5, 7, 8, 9 };
	int fd[5];
	char path[32], b[16];

	ht_init();
	for (int i = 0; i < 5; i++) {
		snprintf(path, sizeof path, "/dev/%s", names[i]);
		fd[i] = open(path, i < 3 ? O_RDWR : O_RDONLY);
		CHECK(fd[i] >= 0);
	}
	while (point()) {
		for (int i = 0; i < 5; i++)
			CHECK_EQ(stat_of(fd[i]).st_rdev, makedev(1, minors[i]));
		CHECK_EQ(read(fd[0], b, 1), 0);
		b[0] = 1;
		CHECK_EQ(read(fd[1], b, 1), 1);
		CHECK_EQ(b[0], 0);
		CHECK(write(fd[2], b, 1) < 0 && errno == ENOSPC);
		CHECK_EQ(read(fd[3], b, 1), 1);
		CHECK_EQ(read(fd[4], b, 16), 16);
	}
	return done();
}
