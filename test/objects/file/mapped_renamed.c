/* shared mappings of files that no longer have the name by which they were mapped, but another, and that nobody has open */
#include "file.h"

enum { SIZE = 20000, FILES = 7 };

static const char *final[FILES] = {"linked", "tmpfile", "renamed", "moved/to", "replaced", "end (deleted)", "moved/linked"};
static volatile int *map[FILES];

static void move(const char *from, const char *to, int links)
{
	char old[600], new[600];

	strcpy(old, ht_path(from));
	strcpy(new, ht_path(to));
	if (!links) {
		CHECK_EQ(rename(old, new), 0);
		return;
	}
	CHECK_EQ(link(old, new), 0);
	CHECK_EQ(unlink(old), 0);
}

static volatile int *shared(int fd)
{
	CHECK_EQ(ftruncate(fd, SIZE), 0);
	volatile int *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(close(fd), 0);
	return p;
}

static volatile int *tmpfile_named(const char *name)
{
	char self[64];
	int fd = open(ht_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	CHECK_EQ(linkat(AT_FDCWD, self, AT_FDCWD, ht_path(name), AT_SYMLINK_FOLLOW), 0);
	return shared(fd);
}

static int value_in(const char *name)
{
	int value, fd = open(ht_path(name), O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, &value, sizeof value, 3000 * sizeof value), sizeof value);
	CHECK_EQ(close(fd), 0);
	return value;
}

int main(void)
{
	ht_init();
	CHECK_EQ(mkdir(ht_path("moved"), 0700), 0);
	map[0] = shared(make("a", O_RDWR, ""));
	move("a", final[0], 1);
	map[1] = tmpfile_named(final[1]);
	map[2] = shared(make("c", O_RDWR, ""));
	move("c", final[2], 0);
	map[3] = shared(make("d", O_RDWR, ""));
	move("d", final[3], 0);
	CHECK_EQ(close(make(final[4], O_RDWR, "before")), 0);
	map[4] = shared(make("e", O_RDWR, ""));
	move("e", final[4], 0);
	map[5] = shared(make(final[5], O_RDWR, ""));
	map[6] = shared(make("f", O_RDWR, ""));
	move("f", final[6], 1);
	volatile int *other = shared(open(ht_path(final[6]), O_RDWR | O_CLOEXEC)); /* only this tells an ordinary user of the name */
	for (int n = 1; point(); n++) {
		for (int i = 0; i < FILES; i++) {
			map[i][3000] = n + i;
			CHECK_EQ(value_in(final[i]), n + i);
		}
		CHECK_EQ(other[3000], map[6][3000]);
	}
	return done();
}
