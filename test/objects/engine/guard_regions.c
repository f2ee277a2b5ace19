/* guard regions, MADV_GUARD_INSTALL, among pages with content; they can be taken away again */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

#define PAGES 64
#define GUARD_INSTALL 102
#define GUARD_REMOVE 103

static int guarded(int page) { return page % 7 == 3 || (page >= 40 && page < 50); }

int main(void)
{
	ht_init();
	char *p = map_private(PAGES * 4096), *giant = mmap(NULL, 1L << 32, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(giant != MAP_FAILED);
	int has = 1;
	for (int i = 0; i < PAGES; i++) {
		p[i * 4096] = i;
		if (guarded(i))
			has = madvise(p + i * 4096, 4096, GUARD_INSTALL) == 0; /* Linux 6.13 */
	}
	if (has)
		CHECK(madvise(giant + (1L << 31), 4096, GUARD_INSTALL) == 0);
	while (point()) {
		if (!has)
			continue;
		for (int i = 0; i < PAGES; i++) {
			CHECK_EQ(faults(p + i * 4096), guarded(i));
			if (!guarded(i))
				CHECK_EQ(p[i * 4096], i);
		}
		CHECK(faults(giant + (1L << 31)) && !faults(giant) && !faults(giant + (1L << 31) + 4096));
		CHECK(madvise(p + 3 * 4096, 4096, GUARD_REMOVE) == 0);
		CHECK(p[3 * 4096] == 0);
		CHECK(madvise(p + 3 * 4096, 4096, GUARD_INSTALL) == 0);
	}
	return done();
}
