/* a POSIX lock of a thread with a table of descriptors of its own
 * refused: descriptor table that is not the process's
 */
#include "../object.h"
#include "team.h"
#include <sched.h>

static int fd;

static void set(int n)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = n };

	CHECK(unshare(CLONE_FILES) == 0);
	CHECK(fcntl(fd, F_SETLK, &lock) == 0);
}

static void check(int n)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = n };

	CHECK(fcntl(fd, F_SETLK, &lock) == 0);
}

int main(void)
{
	ht_init();
	fd = open(ht_path("file"), O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0);
	team_start(1, set, check);
	while (point()) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };

		CHECK(fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK); /* another's */
		team_check();
	}
	team_end();
	return done();
}
