/* prctl(2) of a process: child subreaper, dumpable, memory merging, core dump filter */
#include "../object.h"
#include <sys/prctl.h>

#define GET_MERGE 68
#define SET_MERGE 67

int main(void)
{
	int subreaper, merge;
	unsigned filter;

	ht_init();
	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	merge = prctl(SET_MERGE, 1, 0, 0, 0) == 0; /* CONFIG_KSM, 6.4 */
	FILE *f = fopen("/proc/self/coredump_filter", "w");
	CHECK(f && fprintf(f, "0x1f") > 0 && fclose(f) == 0);
	while (point()) {
		CHECK(prctl(PR_GET_CHILD_SUBREAPER, &subreaper) == 0 && subreaper == 1);
		CHECK(prctl(PR_GET_DUMPABLE) == 1);
		if (merge)
			CHECK(prctl(GET_MERGE, 0, 0, 0, 0) == 1);
		f = fopen("/proc/self/coredump_filter", "r");
		CHECK(f && fscanf(f, "%x", &filter) == 1 && fclose(f) == 0);
		CHECK_EQ(filter, 0x1f);
	}
	return done();
}
