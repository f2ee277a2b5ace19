/* one process of the tree traces another, ptrace(2): both are named
 * refused: is traced by pid
 */
#include "../object.h"
#include <sys/ptrace.h>
#include <sys/wait.h>

int main(void)
{
	ht_init();
	int status;
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
		raise(SIGSTOP);
		_exit(7);
	}
	CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
	while (point())
		CHECK(ptrace(PTRACE_PEEKUSER, child, 0, 0) != -1 || errno == 0);
	CHECK(ptrace(PTRACE_CONT, child, 0, 0) == 0);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	return done();
}
