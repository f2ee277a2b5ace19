/* a mapping of 1 TiB that is almost empty costs nothing */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

#define GIANT (1L << 40)

int main(void)
{
	ht_init();
	char *p = mmap(NULL, GIANT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(p != MAP_FAILED);
	char *none = mmap(NULL, GIANT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(none != MAP_FAILED);
	for (long i = 12; i < 40; i++)
		p[1L << i] = i;
	while (point()) {
		for (long i = 12; i < 40; i++)
			CHECK_EQ(p[1L << i], i);
		CHECK(p[GIANT - 1] == 0 && faults(none + GIANT / 2));
	}
	return done();
}
