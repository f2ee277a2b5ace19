/* private memory of hugetlbfs, where the administrator has set pages aside
 * as: root
 */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

#define HUGE (2L << 20)

int main(void)
{
	ht_init();
	char *p = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	int has = p != MAP_FAILED;
	if (has)
		for (long i = 0; i < HUGE; i += 4096)
			p[i] = i >> 12;
	while (point()) {
		if (!has)
			continue;
		CHECK(smaps_flag(p, "ht"));
		for (long i = 0; i < HUGE; i += 4096)
			CHECK_EQ(p[i], (char)(i >> 12));
		CHECK_EQ(p[HUGE], 0);
	}
	return done();
}
