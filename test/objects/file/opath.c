/* O_PATH of a file, a directory, a symbolic link and a deleted file */
#include "file.h"

int main(void)
{
	struct stat st;
	char target[16] = "";

	ht_init();
	close(make("f", O_RDWR, "content"));
	CHECK(symlink("nowhere", ht_path("l")) == 0);
	close(make("d", O_RDWR, "deleted"));
	int file = open(ht_path("f"), O_PATH), dir = open(ht_dir, O_PATH | O_DIRECTORY);
	int link = open(ht_path("l"), O_PATH | O_NOFOLLOW), gone = open(ht_path("d"), O_PATH);
	CHECK(file >= 0 && dir >= 0 && link >= 0 && gone >= 0);
	CHECK(unlink(ht_path("d")) == 0);
	while (point()) {
		for (int i = 0; i < 4; i++)
			CHECK(fcntl((int[]){ file, dir, link, gone }[i], F_GETFL) & O_PATH);
		CHECK(fstatat(dir, "f", &st, 0) == 0 && st.st_size == 7);
		CHECK_EQ(st.st_ino, stat_of(file).st_ino);
		CHECK(S_ISLNK(stat_of(link).st_mode));
		CHECK_EQ(readlinkat(link, "", target, sizeof target), 7);
		CHECK_EQ(stat_of(gone).st_nlink, 0);
		CHECK_EQ(stat_of(gone).st_size, 7);
		char name[64];
		snprintf(name, sizeof name, "/proc/self/fd/%d", gone);
		int again = open(name, O_RDONLY);
		reads(again, 0, "deleted");
		close(again);
	}
	return done();
}
