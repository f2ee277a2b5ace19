/* memory in transparent huge pages: content, advice, and parts given back */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

#define HUGE (2L << 20)

int main(void)
{
	uint64_t seed = 7;

	ht_init();
	char *p = map_private(5 * HUGE);
	p = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	CHECK(madvise(p, 4 * HUGE, MADV_HUGEPAGE) == 0);
	for (long i = 0; i < 4 * HUGE / 8; i++)
		((uint64_t *)p)[i] = ht_random(&seed);
	CHECK(madvise(p + HUGE, 8192, MADV_DONTNEED) == 0);
	while (point()) {
		CHECK(smaps_flag(p, "hg"));
		seed = 7;
		for (long i = 0; i < 4 * HUGE / 8; i++) {
			uint64_t want = ht_random(&seed);
			if (i >= HUGE / 8 && i < (HUGE + 8192) / 8)
				want = 0;
			CHECK(((uint64_t *)p)[i] == want);
		}
	}
	return done();
}
