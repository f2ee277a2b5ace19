/* a process whose children go into a pid namespace of their own, with one there
 * as: root
 * refused: pid_for_children namespace
 */
#include "../object.h"
#include <sched.h>
#include <sys/wait.h>

int main(void)
{
	ht_init();
	CHECK(unshare(CLONE_NEWPID) == 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0)
		for (;;)
			pause();
	while (point())
		CHECK(kill(child, 0) == 0);
	int status;
	CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
	return done();
}
