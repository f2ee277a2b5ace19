/* a process whose clocks are shifted by a time namespace of its own
 * as: root
 * refused: time namespace
 */
#include "../object.h"
#include <sched.h>
#include <sys/wait.h>

int main(void)
{
	ht_init();
	CHECK(unshare(CLONE_NEWTIME) == 0);
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
