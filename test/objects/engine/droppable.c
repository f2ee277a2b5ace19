/* MAP_DROPPABLE memory: it is there, and holds what it held or zeros, as the kernel may drop it */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

int main(void)
{
	ht_init();
	char *p = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, 8 /* MAP_DROPPABLE */ | MAP_ANONYMOUS, -1, 0);
	int has = p != MAP_FAILED; /* Linux 6.11 */
	while (point()) {
		if (!has)
			continue;
		for (int i = 0; i < 8; i++) {
			CHECK(p[i * 4096] == 0 || p[i * 4096] == i);
			p[i * 4096] = i;
		}
		CHECK(smaps_flag(p, "dp") && smaps_flag(p, "wf") && smaps_flag(p, "dd") && smaps_flag(p, "nr"));
	}
	return done();
}
