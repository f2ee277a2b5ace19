/* 60 000 mappings, near to vm.max_map_count */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

#define MANY 60000L

int main(void)
{
	ht_init();
	char *p = map_private(MANY * 4096);
	for (long i = 0; i < MANY; i += 2) {
		*(long *)(p + i * 4096) = i;
		CHECK(mprotect(p + i * 4096, 4096, PROT_READ) == 0);
	}
	while (point())
		for (long i = 0; i < MANY; i++) {
			CHECK_EQ(*(long *)(p + i * 4096), (i % 2 ? 0 : i));
			if (i % 1000 == 0) {
				CHECK(mprotect(p + i * 4096, 4096, PROT_READ | PROT_WRITE) == 0);
				CHECK(mprotect(p + i * 4096, 4096, PROT_READ) == 0);
			}
		}
	return done();
}
