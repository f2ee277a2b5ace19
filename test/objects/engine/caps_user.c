/* a daemon that has left root for a user, but kept two capabilities
 * as: root
 */
#include "../object.h"
#include "caps.h"
#include <grp.h>
#include <sys/stat.h>

#define KEPT (1ULL << CAP_NET_ADMIN | 1ULL << CAP_DAC_READ_SEARCH)

int main(void)
{
	uid_t r, e, s;
	gid_t groups[8] = { 65534, 7, 12 };

	ht_init();
	CHECK(chmod(ht_dir, 0755) == 0); /* other users look for what the tests write */
	CHECK(setgroups(3, groups) == 0);
	CHECK(setresgid(65534, 65534, 65534) == 0);
	CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0);
	CHECK(setresuid(65534, 65534, 65534) == 0);
	caps_set(KEPT, KEPT, 0);
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	struct caps c = caps_get();
	while (point()) {
		caps_same(caps_get(), c);
		CHECK_EQ(prctl(PR_GET_KEEPCAPS), 1);
		CHECK(getresuid(&r, &e, &s) == 0 && r == 65534 && e == 65534 && s == 65534);
		CHECK(getresgid(&r, &e, &s) == 0 && r == 65534 && e == 65534 && s == 65534);
		CHECK_EQ(getgroups(8, groups), 3);
		CHECK(groups[0] == 7 && groups[1] == 12 && groups[2] == 65534);
	}
	return done();
}
