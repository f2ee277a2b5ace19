/* a process in a namespace of its own: net
 * as: root
 * refused: net namespace
 */
#include "../object.h"
#include <sched.h>

int main(void)
{
	ht_init();
	CHECK(unshare(CLONE_NEWNET) == 0);
	while (point())
		;
	return done();
}
