/* PR_SET_MDWE: no memory is writable and executable, or becomes executable later */
#include "../object.h"
#include <sys/mman.h>
#include <sys/prctl.h>
#include "smaps.h"

int main(void)
{
	ht_init();
	int has = prctl(65 /* PR_SET_MDWE */, 1 /* PR_MDWE_REFUSE_EXEC_GAIN */, 0, 0, 0) == 0; /* Linux 6.3 */
	char *p = map_private(4096);
	while (point()) {
		if (!has)
			continue;
		CHECK_EQ(prctl(66 /* PR_GET_MDWE */, 0, 0, 0, 0), 1);
		CHECK(mprotect(p, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EACCES);
	}
	return done();
}
