/* pidfd: of a process outside of the computation
 * refused: which is not of this computation
 */
#include "../object.h"

int main(void)
{
	ht_init();
	int fd = syscall(SYS_pidfd_open, getppid(), 0);
	while (point())
		CHECK_EQ(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), 0);
	return done();
}
