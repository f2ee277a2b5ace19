/* a child of vfork(2), for which its parent waits, that does not call execve(2) for long
 * refused: vfork
 */
#include "../object.h"
#include <sys/wait.h>

int main(void)
{
	ht_init();
	pid_t parent = getpid();
	pid_t child = vfork();
	if (child == 0) {
		while (point())
			CHECK(getppid() == parent);
		_exit(0);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	return done();
}
