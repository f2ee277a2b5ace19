/* a process in a user namespace of its own
 * refused: user namespace
 */
#include "../object.h"
#include <sched.h>

int main(void)
{
	ht_init();
	CHECK(unshare(CLONE_NEWUSER) == 0);
	while (point())
		;
	return done();
}
