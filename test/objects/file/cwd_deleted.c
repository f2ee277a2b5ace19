/* a working directory that was deleted, with its parent */
#include "file.h"

int main(void)
{
	char cwd[1024], link[1100] = "", want[1100];

	ht_init();
	CHECK(mkdir(ht_path("d"), 0700) == 0 && mkdir(ht_path("d/e"), 0711) == 0 && chdir(ht_path("d/e")) == 0);
	CHECK(rmdir(ht_path("d/e")) == 0 && rmdir(ht_path("d")) == 0);
	snprintf(want, sizeof want, "%s (deleted)", ht_path("d/e"));
	while (point()) {
		struct stat st;
		CHECK(getcwd(cwd, sizeof cwd) == NULL && errno == ENOENT);
		CHECK(readlink("/proc/self/cwd", link, sizeof link) > 0 && strcmp(link, want) == 0);
		CHECK(stat(".", &st) == 0 && st.st_nlink == 0 && st.st_mode == (S_IFDIR | 0711));
		CHECK(open("f", O_RDWR | O_CREAT, 0600) < 0 && errno == ENOENT);
		CHECK(access(ht_path("d"), F_OK) < 0);
	}
	CHECK(chdir("/") == 0);
	return done();
}
