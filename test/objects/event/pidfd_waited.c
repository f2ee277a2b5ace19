/* pidfd: of a child that has ended and was waited for
 * refused: has ended and was waited for
 */
#include "../object.h"
#include <poll.h>
#include <sys/wait.h>

int main(void)
{
	ht_init();
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	int fd = syscall(SYS_pidfd_open, child, 0);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	while (point()) {
		CHECK_EQ(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 0), 1);
		CHECK_EQ(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), -1);
		CHECK_EQ(errno, ESRCH);
	}
	return done();
}
