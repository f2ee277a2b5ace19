/* a child that shares its parent's memory, but is no thread: clone(2) with CLONE_VM
 * refused: memory (CLONE_VM)
 */
#include "../object.h"
#include <sched.h>
#include <sys/wait.h>

static char stack[1 << 16] __attribute__((aligned(16)));
static volatile int over;

static int child(void *arg)
{
	(void)arg;
	while (!over)
		ht_nap(1);
	return 0;
}

int main(void)
{
	ht_init();
	pid_t pid = clone(child, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
	CHECK(pid > 0);
	while (point())
		CHECK(kill(pid, 0) == 0);
	over = 1;
	int status;
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	return done();
}
