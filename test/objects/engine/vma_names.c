/* names of anonymous memory, PR_SET_VMA_ANON_NAME, where the kernel has them */
#include "../object.h"
#include <sys/mman.h>
#include <sys/prctl.h>
#include "smaps.h"

static int named(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[600];
	int found = 0;

	CHECK(f);
	while (fgets(line, sizeof line, f))
		found |= strstr(line, name) != NULL;
	fclose(f);
	return found;
}

int main(void)
{
	ht_init();
	char *p = map_private(4096);
	*p = 1;
	int has = prctl(0x53564d41 /* PR_SET_VMA */, 0, p, 4096, "of the fixture") == 0; /* CONFIG_ANON_VMA_NAME */
	CHECK(has || errno == EINVAL);
	while (point())
		CHECK(*p == 1 && named("[anon:of the fixture]") == has);
	return done();
}
