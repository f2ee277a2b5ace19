/* a process in a namespace of its own: cgroup
 * as: root
 * refused: cgroup namespace
 */
#include "../object.h"
#include <sched.h>

int main(void)
{
	ht_init();
	CHECK(unshare(CLONE_NEWCGROUP) == 0);
	while (point())
		;
	return done();
}
