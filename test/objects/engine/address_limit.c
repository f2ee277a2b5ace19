/* a program with no room left in its address space, setrlimit(2)
 * refused: leave no room
 */
#include "../object.h"
#include <sys/mman.h>
#include <sys/resource.h>
#include "smaps.h"

int main(void)
{
	struct rlimit all;
	unsigned long pages;

	ht_init();
	FILE *f = fopen("/proc/self/statm", "r");
	CHECK(f && fscanf(f, "%lu", &pages) == 1 && fclose(f) == 0);
	CHECK(getrlimit(RLIMIT_AS, &all) == 0);
	all.rlim_cur = (pages + 4) * 4096;
	CHECK(setrlimit(RLIMIT_AS, &all) == 0);
	while (point())
		CHECK(getrlimit(RLIMIT_AS, &all) == 0 && all.rlim_cur == (pages + 4) * 4096);
	return done();
}
