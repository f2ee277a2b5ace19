/* pidfd: of a child, of a grandchild, of the process itself, PIDFD_NONBLOCK */
#include "../object.h"
#include <poll.h>
#include <sys/wait.h>

static int pidfd_open(pid_t pid, unsigned flags) { return syscall(SYS_pidfd_open, pid, flags); }
static int pidfd_signal(int fd, int sig) { return syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0); }

int main(void)
{
	int p[2];
	pid_t grandchild;
	siginfo_t info;
	sigset_t set;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	CHECK_EQ(pipe(p), 0);
	pid_t child = fork();
	if (child == 0) {
		grandchild = fork();
		if (grandchild > 0)
			CHECK_EQ(write(p[1], &grandchild, sizeof grandchild), sizeof grandchild);
		for (;;)
			pause();
	}
	CHECK_EQ(read(p[0], &grandchild, sizeof grandchild), sizeof grandchild);
	int fd = pidfd_open(child, O_NONBLOCK), other = pidfd_open(grandchild, 0), self = pidfd_open(getpid(), 0);
	while (point()) {
		struct pollfd all[] = { { fd, POLLIN, 0 }, { other, POLLIN, 0 }, { self, POLLIN, 0 } };

		CHECK_EQ(poll(all, 3, 0), 0);
		CHECK_EQ(pidfd_signal(fd, 0), 0);
		CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
		CHECK_EQ(fcntl(other, F_GETFL) & O_NONBLOCK, 0);
		CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
		CHECK_EQ(waitid(P_PIDFD, fd, &info, WEXITED), -1);
		CHECK_EQ(errno, EAGAIN);
		CHECK_EQ(pidfd_signal(self, SIGUSR1), 0);
		CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
	}
	CHECK_EQ(pidfd_signal(other, SIGKILL), 0);
	CHECK_EQ(poll(&(struct pollfd){ other, POLLIN, 0 }, 1, -1), 1);
	CHECK_EQ(pidfd_signal(fd, SIGTERM), 0);
	CHECK_EQ(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, -1), 1);
	CHECK_EQ(waitid(P_PIDFD, fd, &info, WEXITED), 0);
	CHECK_EQ(info.si_pid, child);
	CHECK_EQ(info.si_status, SIGTERM);
	return done();
}
