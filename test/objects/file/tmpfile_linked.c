/* O_TMPFILE that was given a name through /proc/self/fd */
#include "file.h"

int main(void)
{
	char self[64];

	ht_init();
	int fd = open(ht_dir, O_TMPFILE | O_RDWR, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "content", 7), 7);
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	CHECK(linkat(AT_FDCWD, self, AT_FDCWD, ht_path("named"), AT_SYMLINK_FOLLOW) == 0);
	while (point()) {
		int named = open(ht_path("named"), O_RDONLY);
		CHECK(named >= 0 && same_file(fd, named));
		close(named);
		reads(fd, 0, "content");
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
	}
	return done();
}
