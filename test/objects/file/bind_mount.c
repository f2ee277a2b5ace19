/* a bind mount that only the tree sees, in a mount namespace of its own
 * refused: mnt namespace
 */
#include "file.h"
#include <sched.h>
#include <sys/mount.h>

int main(void)
{
	ht_init();
	CHECK(mkdir(ht_path("a"), 0700) == 0 && mkdir(ht_path("b"), 0700) == 0);
	CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
	CHECK(mount(ht_path("a"), ht_path("a"), NULL, MS_BIND, NULL) == 0);
	int fd = open(ht_path("a"), O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0);
	while (point())
		CHECK(S_ISDIR(stat_of(fd).st_mode));
	return done();
}
