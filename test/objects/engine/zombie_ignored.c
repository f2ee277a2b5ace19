/* zombies whose parent has then ignored SIGCHLD, or set SA_NOCLDWAIT: they stay until they are waited for, sigaction(2) */
#include "../object.h"
#include "pair.h"

static void ignore(struct sigaction *a, int n)
{
	*a = (struct sigaction){ .sa_handler = n ? SIG_DFL : SIG_IGN, .sa_flags = n ? SA_NOCLDWAIT : 0 };
	CHECK_EQ(sigaction(SIGCHLD, a, NULL), 0);
}

/* parent has an ended child, and checks it whenever it is asked to. */
static void parent(int n)
{
	struct sigaction want, now;
	siginfo_t info;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0)
		_exit(7);
	CHECK_EQ(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
	ignore(&want, n);
	do {
		CHECK_EQ(waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
		CHECK_EQ(info.si_pid, pid);
		CHECK_EQ(info.si_status, 7);
		CHECK_EQ(sigaction(SIGCHLD, NULL, &now), 0);
		CHECK(now.sa_handler == want.sa_handler);
		CHECK_EQ(now.sa_flags & SA_NOCLDWAIT, want.sa_flags);
	} while (pair_told(n));
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
	ht_init();
	pair_start(parent);
	while (point())
		pair_check();
	pair_end();
	return done();
}
