/* 30 000 mappings of one piece of shared memory, in reverse order */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

#define MANY 30000L

int main(void)
{
	ht_init();
	char *p = mmap(NULL, MANY * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *q = map_private((MANY + 1) * 4096);
	CHECK(p != MAP_FAILED);
	for (long i = 0; i < MANY; i++)
		*(long *)(p + i * 4096) = i;
	for (long i = 0; i < MANY; i++)
		CHECK(mremap(p + i * 4096, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, q + (MANY - 1 - i) * 4096) != MAP_FAILED);
	while (point())
		for (long i = 0; i < MANY; i++)
			CHECK_EQ(*(long *)(q + (MANY - 1 - i) * 4096), i);
	return done();
}
