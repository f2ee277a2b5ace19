/* threads with users, groups and capabilities of their own, set by system call
 * as: root
 */
#include "../object.h"
#include "caps.h"
#include "team.h"

static struct caps before[3];

static void set(int n)
{
	gid_t groups[] = { 10 + n, 20 + n };

	CHECK(syscall(SYS_setgroups, 2, groups) == 0);
	CHECK(syscall(SYS_setresgid, 300 + n, 300 + n, 300 + n) == 0);
	CHECK(syscall(SYS_setresuid, 400 + n, 400 + n, 400 + n) == 0);
	before[n] = caps_get();
	CHECK_EQ(before[n].permitted, 0);
}

static void check(int n)
{
	gid_t groups[] = { 10 + n, 20 + n }, got[8];
	uid_t r, e, s, want = 400 + n;

	CHECK(syscall(SYS_getresuid, &r, &e, &s) == 0 && r == want && e == want && s == want);
	want = 300 + n;
	CHECK(syscall(SYS_getresgid, &r, &e, &s) == 0 && r == want && e == want && s == want);
	CHECK(syscall(SYS_getgroups, 8, got) == 2 && memcmp(got, groups, sizeof groups) == 0);
	caps_same(caps_get(), before[n]);
}

int main(void)
{
	ht_init();
	team_start(2, set, check);
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	before[0] = caps_get();
	while (point()) {
		CHECK(geteuid() == 0);
		caps_same(caps_get(), before[0]);
		team_check();
	}
	team_end();
	return done();
}
