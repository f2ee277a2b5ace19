/* locked memory: mlock(2), mlock2(2) on fault, and mlockall(2) for mappings to come */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

/* on_fault tells of MLOCK_ONFAULT, for which older kernels have no name. */
static int on_fault(const void *addr)
{
	return smaps_flag(addr, "lf") || smaps_flag(addr, "??");
}

int main(void)
{
	ht_init();
	char *a = map_private(4 * 4096), *b = map_private(4 * 4096);
	CHECK(mlock(a, 2 * 4096) == 0);
	CHECK(mlock2(b, 2 * 4096, MLOCK_ONFAULT) == 0);
	CHECK(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
	while (point()) {
		CHECK(smaps_flag(a, "lo") && !on_fault(a) && !smaps_flag(a + 3 * 4096, "lo"));
		CHECK(smaps_flag(b, "lo") && on_fault(b) && !smaps_flag(b + 3 * 4096, "lo"));
		char *c = map_private(3 * 4096);
		CHECK(smaps_flag(c, "lo") && on_fault(c));
		CHECK(munmap(c, 3 * 4096) == 0);
	}
	return done();
}
