/* a program that is not dumpable, in a user namespace, in which its user may trace it
 * as: user root
 * launch: --userns
 * alone: it stays dumpable, prctl(2)
 */
#include "../object.h"
#include <sys/prctl.h>

int main(void)
{
	ht_init();
	CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
	while (point())
		CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
	return done();
}
