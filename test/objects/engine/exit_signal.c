/* Children that end with no signal, and with another than SIGCHLD: clone(2), __WCLONE. */
#include "../object.h"
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static pid_t child(int sig)
{
	pid_t pid = syscall(SYS_clone, sig, 0, 0, 0, 0);

	CHECK(pid >= 0);
	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

static volatile sig_atomic_t told;

static void tell(int sig) { told = sig; }

int main(void)
{
	const int signals[] = { 0, SIGUSR2 };
	pid_t pid[2];

	ht_init();
	CHECK(signal(SIGUSR2, tell) != SIG_ERR);
	for (int i = 0; i < 2; i++)
		pid[i] = child(signals[i]);
	while (point())
		for (int i = 0; i < 2; i++) {
			CHECK(waitpid(pid[i], NULL, WNOHANG) == -1 && errno == ECHILD);
			CHECK_EQ(waitpid(pid[i], NULL, WNOHANG | __WCLONE), 0);
		}
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(kill(pid[i], SIGKILL), 0);
		CHECK_EQ(waitpid(pid[i], NULL, __WCLONE), pid[i]);
		CHECK_EQ(told, signals[i]);
	}
	return done();
}
