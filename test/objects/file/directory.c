/* the read position of a directory stream */
#include "file.h"
#include <dirent.h>

enum { N = 300 };

int main(void)
{
	char name[32];
	static char seen[N];
	int left = N;

	ht_init();
	CHECK(mkdir(ht_path("d"), 0700) == 0);
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof name, "d/%d", i);
		close(make(name, O_RDWR, ""));
	}
	DIR *d = opendir(ht_path("d"));
	CHECK(d);
	int fl = fcntl(dirfd(d), F_GETFL);
	do {
		CHECK_EQ(fcntl(dirfd(d), F_GETFL), fl);
		for (int n = 0; n < 100 && left > 0;) {
			struct dirent *e = readdir(d);
			CHECK(e);
			if (e->d_name[0] == '.')
				continue;
			int i = atoi(e->d_name);
			CHECK(i < N && !seen[i]++);
			n++, left--;
		}
	} while (point());
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.')
			CHECK(!seen[atoi(e->d_name)]++ && left-- > 0);
	CHECK_EQ(left, 0);
	return done();
}
