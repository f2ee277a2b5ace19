/* a deleted file that is mapped and not open, of which the page cache has nothing */
#include "file.h"

enum { PAGES = 64, PAGE = 4096 };

int main(void)
{
	static char page[PAGE];

	ht_init();
	int fd = open(ht_path("f"), O_RDWR | O_CREAT | O_EXCL, 0600);
	CHECK(fd >= 0);
	for (int i = 0; i < PAGES; i++) {
		memset(page, 'A' + i % 26, PAGE);
		CHECK_EQ(write(fd, page, PAGE), PAGE);
	}
	CHECK_EQ(ftruncate(fd, (PAGES + 3) * PAGE - 100), 0);
	CHECK_EQ(fsync(fd), 0);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	char *m = mmap(NULL, (PAGES + 8) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(unlink(ht_path("f")), 0);
	int n = 0;
	while (point()) { /* each page is looked at once: that brings it into the cache, and what is around it */
		int last = PAGES - 1 - n++;

		for (int i = 0; i < PAGE; i += 97)
			CHECK_EQ(m[last * PAGE + i], 'A' + last % 26);
		CHECK_EQ(m[(PAGES + 2) * PAGE + 5], 0);
	}
	for (int i = 0; i < PAGES; i++)
		CHECK_EQ(m[i * PAGE], 'A' + i % 26);
	return done();
}
