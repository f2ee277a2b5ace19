/* umask, and a working directory that was renamed */
#include "file.h"

int main(void)
{
	char cwd[1024], to[600];

	ht_init();
	CHECK(mkdir(ht_path("old"), 0700) == 0 && chdir(ht_path("old")) == 0);
	strcpy(to, ht_path("new"));
	CHECK(rename(ht_path("old"), to) == 0);
	umask(0137);
	while (point()) {
		CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, to) == 0);
		CHECK_EQ(umask(0137), 0137);
		int fd = open("f", O_RDWR | O_CREAT | O_EXCL, 0777);
		CHECK_EQ(stat_of(fd).st_mode & 0777, 0640);
		close(fd);
		CHECK(unlink(ht_path("new/f")) == 0);
	}
	return done();
}
