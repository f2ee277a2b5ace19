/* four different users and groups: real, effective, saved, file system; and supplementary groups
 * as: root
 */
#include "../object.h"
#include <grp.h>
#include <sys/stat.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

int main(void)
{
	gid_t want[] = { 3, 44, 1000, 70000 }, groups[16];
	uid_t r, e, s;

	ht_init();
	CHECK(chmod(ht_dir, 0755) == 0); /* other users look for what the tests write */
	CHECK(setgroups(4, want) == 0);
	CHECK(setresgid(101, 102, 103) == 0);
	CHECK(setresuid(201, 0, 203) == 0);
	setfsgid(104);
	setfsuid(204);
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	while (point()) {
		CHECK(getresuid(&r, &e, &s) == 0 && r == 201 && e == 0 && s == 203);
		CHECK(getresgid(&r, &e, &s) == 0 && r == 101 && e == 102 && s == 103);
		CHECK_EQ(setfsuid(-1), 204);
		CHECK_EQ(setfsgid(-1), 104);
		CHECK_EQ(getgroups(16, groups), 4);
		CHECK(memcmp(groups, want, sizeof want) == 0);
	}
	return done();
}
