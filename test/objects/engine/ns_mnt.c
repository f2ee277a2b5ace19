/* a process in a namespace of its own: mnt
 * as: root
 * refused: mnt namespace
 */
#include "../object.h"
#include <sched.h>

int main(void)
{
	ht_init();
	CHECK(unshare(CLONE_NEWNS) == 0);
	while (point())
		;
	return done();
}
