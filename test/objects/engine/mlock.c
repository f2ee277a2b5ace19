/* locked memory: mlock(2), mlock2(2) on fault, and mlockall(2) for mappings to come */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

int main(void)
{
	ht_init();
	char *a = map_private(4 * 4096), *b = map_private(4 * 4096);
	CHECK(mlock(a, 2 * 4096) == 0);
	CHECK(mlock2(b, 2 * 4096, MLOCK_ONFAULT) == 0);
	CHECK(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
	while (point()) {
		CHECK(smaps_flag(a, "lo") && !smaps_flag(a, "lf") && !smaps_flag(a + 3 * 4096, "lo"));
		CHECK(smaps_flag(b, "lo") && smaps_flag(b, "lf") && !smaps_flag(b + 3 * 4096, "lo"));
		char *c = map_private(3 * 4096);
		CHECK(smaps_flag(c, "lo") && smaps_flag(c, "lf"));
		CHECK(munmap(c, 3 * 4096) == 0);
	}
	return done();
}
