/* sealed memory, mseal(2): nobody can unmap or protect it, also afterwards */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

int main(void)
{
	ht_init();
	char *p = map_private(4 * 4096);
	p[0] = 1, p[4096] = 2;
	CHECK(mprotect(p, 4096, PROT_READ) == 0);
	int has = syscall(462, p, 2 * 4096, 0) == 0; /* Linux 6.10 */
	while (point()) {
		CHECK(p[0] == 1 && p[4096] == 2);
		if (!has)
			continue;
		CHECK(smaps_flag(p, "sl") && smaps_flag(p + 4096, "sl") && !smaps_flag(p + 2 * 4096, "sl"));
		CHECK(munmap(p, 4096) == -1 && errno == EPERM);
		CHECK(mprotect(p + 4096, 4096, PROT_NONE) == -1 && errno == EPERM);
		CHECK(mprotect(p + 2 * 4096, 4096, PROT_READ) == 0);
	}
	return done();
}
