/* a process that has restricted itself, which nothing tells
 * refused: restricted itself by Landlock
 */
#include "../object.h"
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

int main(void)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_DIR };

	ht_init();
	int fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
	CHECK(fd >= 0);
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(syscall(SYS_landlock_restrict_self, fd, 0), 0);
	close(fd);
	while (point())
		;
	return done();
}
