/* ptrace(2): a debugger that detaches for the checkpoint attaches again */
#include "../object.h"
#include <sys/ptrace.h>
#include <sys/wait.h>

static volatile long rounds = 1, stop;

int main(void)
{
	int status;

	ht_init();
	pid_t child = fork();
	if (child == 0) {
		while (!stop)
			ht_nap(1);
		_exit(7);
	}
	for (long n = 1; point(); n++) {
		CHECK_EQ(ptrace(PTRACE_ATTACH, child, 0, 0), 0);
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
		CHECK_EQ(ptrace(PTRACE_PEEKDATA, child, &rounds, 0), n);
		CHECK_EQ(ptrace(PTRACE_POKEDATA, child, &rounds, n + 1), 0);
		CHECK_EQ(ptrace(PTRACE_DETACH, child, 0, 0), 0);
	}
	CHECK_EQ(ptrace(PTRACE_ATTACH, child, 0, 0), 0);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(ptrace(PTRACE_POKEDATA, child, &stop, 1), 0);
	CHECK_EQ(ptrace(PTRACE_DETACH, child, 0, 0), 0);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	return done();
}
