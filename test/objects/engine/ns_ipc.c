/* a process in a namespace of its own: ipc
 * as: root
 * refused: ipc namespace
 */
#include "../object.h"
#include <sched.h>

int main(void)
{
	ht_init();
	CHECK(unshare(CLONE_NEWIPC) == 0);
	while (point())
		;
	return done();
}
