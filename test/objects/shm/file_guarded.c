/* A guard region, MADV_GUARD_INSTALL, in a shared mapping of a small file. */
#include "ipc.h"
#include "../engine/smaps.h"

enum { PAGE = 4096, GUARD_INSTALL = 102, GUARD_REMOVE = 103 };

int main(void)
{
	ht_init();
	int fd = open(ht_path("data"), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, 3 * PAGE), 0);
	char *p = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(close(fd), 0);
	p[PAGE] = 'g';
	int has = madvise(p + PAGE, PAGE, GUARD_INSTALL) == 0; /* Linux 6.15 */
	while (point()) {
		CHECK_EQ(faults(p + PAGE), has);
		CHECK(!has || madvise(p + PAGE, PAGE, GUARD_REMOVE) == 0);
		CHECK_EQ(p[PAGE], 'g');
		CHECK(!has || madvise(p + PAGE, PAGE, GUARD_INSTALL) == 0);
	}
	return done();
}
