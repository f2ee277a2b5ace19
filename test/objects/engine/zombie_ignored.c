/* zombies whose parent has then ignored SIGCHLD, or set SA_NOCLDWAIT: they stay until they are waited for, sigaction(2) */
#include "../object.h"
#include <sys/wait.h>

static void ignore(struct sigaction *a, int n)
{
	*a = (struct sigaction){ .sa_handler = n ? SIG_DFL : SIG_IGN, .sa_flags = n ? SA_NOCLDWAIT : 0 };
	CHECK_EQ(sigaction(SIGCHLD, a, NULL), 0);
}

/* parent has an ended child, and checks it whenever it is asked to. */
static void parent(int n, int in, int out)
{
	struct sigaction want, now;
	siginfo_t info;
	pid_t pid = fork();
	char c;

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
	} while (write(out, "c", 1) == 1 && read(in, &c, 1) == 1);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	_exit(0);
}

int main(void)
{
	int in[2][2], out[2];
	char c;

	ht_init();
	CHECK_EQ(pipe(out), 0);
	for (int n = 0; n < 2; n++) {
		CHECK_EQ(pipe2(in[n], O_CLOEXEC), 0);
		if (fork() == 0) {
			for (int k = 0; k <= n; k++)
				close(in[k][1]);
			parent(n, in[n][0], out[1]);
		}
		CHECK_EQ(read(out[0], &c, 1), 1);
	}
	while (point())
		for (int n = 0; n < 2; n++)
			CHECK(write(in[n][1], "c", 1) == 1 && read(out[0], &c, 1) == 1);
	for (int n = 0; n < 2; n++)
		close(in[n][1]);
	for (int n = 0; n < 2; n++) {
		int status;
		CHECK(wait(&status) > 0 && status == 0);
	}
	return done();
}
