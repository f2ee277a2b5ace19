/* A process whose filter ends it for restart_syscall(2), as OpenSSH's does, and that
 * waits in calls with a time-out. */
#include "../object.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static void filtered(int fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { 4, code };
	struct pollfd comes = { fd, POLLIN, 0 };
	char c;

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0);
	do {
		CHECK_EQ(poll(&comes, 1, 3600 * 1000), 1);
		CHECK(write(fd, "a", read(fd, &c, 1)) >= 0);
	} while (c != 'q');
	_exit(0);
}

int main(void)
{
	int pair[2], status;
	char c;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	pid_t child = fork();
	if (child == 0)
		filtered(pair[1]);
	close(pair[1]);
	do {
		CHECK(send(pair[0], "p", 1, MSG_NOSIGNAL) == 1);
		CHECK_EQ(read(pair[0], &c, 1), 1);
	} while (point());
	CHECK(send(pair[0], "q", 1, MSG_NOSIGNAL) == 1);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	return done();
}
