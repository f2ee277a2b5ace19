/* threads with a working directory and umask of their own, unshare(2) with CLONE_FS */
#include "../object.h"
#include "team.h"
#include <sched.h>
#include <sys/stat.h>

static void set(int n)
{
	char dir[32];

	CHECK(unshare(CLONE_FS) == 0);
	snprintf(dir, sizeof dir, "dir%d", n);
	CHECK(mkdir(ht_path(dir), 0755) == 0 && chdir(ht_path(dir)) == 0);
	umask(n);
}

static void check(int n)
{
	char cwd[2000], dir[32];

	snprintf(dir, sizeof dir, "dir%d", n);
	CHECK(getcwd(cwd, sizeof cwd));
	CHECK(strcmp(cwd, ht_path(dir)) == 0);
	mode_t mask = umask(0);
	CHECK_EQ(mask, n);
	umask(mask);
}

int main(void)
{
	char cwd[2000];

	ht_init();
	CHECK(chdir("/usr") == 0);
	umask(022);
	team_start(3, set, check);
	while (point()) {
		CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/usr") == 0);
		mode_t mask = umask(0);
		CHECK_EQ(mask, 022);
		umask(mask);
		team_check();
	}
	team_end();
	return done();
}
