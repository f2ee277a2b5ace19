/* an ordinary user may not look into a program that is not dumpable
 * as: user
 * refused: not dumpable
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
