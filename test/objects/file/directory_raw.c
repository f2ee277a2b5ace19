/* the position of a directory that is read by getdents64(2) in small pieces */
#include "file.h"

enum { N = 60 };

int main(void)
{
	char name[32], b[128];
	static char seen[N];
	int left = N, end = 0;

	ht_init();
	CHECK(mkdir(ht_path("d"), 0700) == 0);
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof name, "d/%d", i);
		close(make(name, O_RDWR, ""));
	}
	int fd = open(ht_path("d"), O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0);
	do {
		for (int turn = 0; turn < 7; turn++) {
			long n = syscall(SYS_getdents64, fd, b, sizeof b);
			CHECK(n >= 0);
			end = n == 0;
			for (char *p = b; p < b + n; p += *(unsigned short *)(p + 16)) {
				if (p[19] == '.')
					continue;
				int i = atoi(p + 19);
				CHECK(i < N && !seen[i]++);
				left--;
			}
		}
	} while (point());
	while (!end) {
		long n = syscall(SYS_getdents64, fd, b, sizeof b);
		end = n == 0;
		for (char *p = b; p < b + n; p += *(unsigned short *)(p + 16))
			if (p[19] != '.')
				CHECK(!seen[atoi(p + 19)]++ && left-- > 0);
	}
	CHECK_EQ(left, 0);
	return done();
}
