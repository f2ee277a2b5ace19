/* userfaultfd: that of faults in user mode, which needs no privilege
 * refused: userfaultfd(2)
 */
#include "../object.h"
#include <sys/ioctl.h>
#include <linux/userfaultfd.h>

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API };

	ht_init();
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	CHECK(fd >= 0);
	CHECK_EQ(ioctl(fd, UFFDIO_API, &api), 0);
	while (point())
		CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	return done();
}
