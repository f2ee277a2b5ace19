/* pidfd: of a child that has ended and was not waited for */
#include "../object.h"
#include <poll.h>
#include <sys/wait.h>

int main(void)
{
	siginfo_t info;

	ht_init();
	pid_t child = fork();
	if (child == 0)
		_exit(23);
	int fd = syscall(SYS_pidfd_open, child, 0);
	CHECK_EQ(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, -1), 1);
	while (point()) {
		struct pollfd p = { fd, POLLIN, 0 };

		CHECK_EQ(poll(&p, 1, 0), 1);
		CHECK_EQ(p.revents, POLLIN);
		CHECK_EQ(waitid(P_PIDFD, fd, &info, WEXITED | WNOWAIT), 0);
		CHECK_EQ(info.si_pid, child);
		CHECK_EQ(info.si_code, CLD_EXITED);
		CHECK_EQ(info.si_status, 23);
	}
	CHECK_EQ(waitid(P_PIDFD, fd, &info, WEXITED), 0);
	return done();
}
