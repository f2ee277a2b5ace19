/* Which descriptors execve(2) closes, where fdinfo does not tell: of queues, and of
 * a terminal that was opened with O_CLOEXEC.
 *
 * cc: -lrt
 */
#include "file.h"
#include <mqueue.h>
#include <sys/ioctl.h>

enum { QUEUE, QUEUE_CLOEXEC, TERMINAL, KINDS };

int main(void)
{
	int closed[KINDS], open[KINDS];
	char name[64];

	ht_init();
	snprintf(name, sizeof name, "/hiatus-cloexec-%ld", (long)getpid());
	closed[QUEUE] = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
	closed[QUEUE_CLOEXEC] = mq_open(name, O_RDWR | O_CLOEXEC);
	CHECK_EQ(mq_unlink(name), 0);
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	CHECK(master >= 0 && unlockpt(master) == 0);
	closed[TERMINAL] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	for (int i = 0; i < KINDS; i++)
		CHECK(closed[i] >= 0 && (open[i] = dup(closed[i])) >= 0);
	while (point())
		for (int i = 0; i < KINDS; i++) {
			CHECK_EQ(fcntl(closed[i], F_GETFD), FD_CLOEXEC);
			CHECK_EQ(fcntl(open[i], F_GETFD), 0);
		}
	return done();
}
