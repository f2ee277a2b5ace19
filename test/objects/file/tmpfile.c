/* O_TMPFILE: content, offset, and that it can still be given a name */
#include "file.h"

int main(void)
{
	char self[64];

	ht_init();
	int fd = open(ht_dir, O_TMPFILE | O_RDWR, 0640);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "content", 7), 7);
	mode_t mode = stat_of(fd).st_mode;
	while (point()) {
		reads(fd, 0, "content");
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
		CHECK_EQ(stat_of(fd).st_nlink, 0);
		CHECK_EQ(stat_of(fd).st_mode, mode);
	}
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	CHECK(linkat(AT_FDCWD, self, AT_FDCWD, ht_path("named"), AT_SYMLINK_FOLLOW) == 0);
	return done();
}
