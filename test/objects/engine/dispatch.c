/* a thread that handles its own system calls, PR_SET_SYSCALL_USER_DISPATCH
 * refused: handles its own system calls
 */
#include "../object.h"
#include <sys/prctl.h>

int main(void)
{
	static char selector; /* 0: calls pass */

	ht_init();
	CHECK(prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector) == 0);
	while (point())
		;
	CHECK(prctl(59, 0, 0, 0, 0) == 0);
	return done();
}
