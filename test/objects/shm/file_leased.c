/* a mapping of a file with a write lease, which the checkpoint does not break
 * refused: write lease on its file
 */
#include "ipc.h"

static volatile sig_atomic_t broken;

static void breaks(int sig)
{
	(void)sig;
	broken = 1;
}

int main(void)
{
	ht_init();
	CHECK(signal(SIGUSR1, breaks) != SIG_ERR);
	int fd = open(ht_path("data"), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, 4096), 0);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(fcntl(fd, F_SETSIG, SIGUSR1), 0);
	CHECK_EQ(fcntl(fd, F_SETLEASE, F_WRLCK), 0);
	p[0] = 1;
	while (point()) {
		CHECK_EQ(broken, 0);
		CHECK_EQ(fcntl(fd, F_GETLEASE), F_WRLCK);
		CHECK_EQ(p[0], 1);
	}
	return done();
}
