/* a thread's own working directory whose name is not UTF-8
 * refused: it is not UTF-8
 */
#include "../object.h"
#include "team.h"
#include <sched.h>
#include <sys/stat.h>

static void set(int n)
{
	(void)n;
	CHECK_EQ(unshare(CLONE_FS), 0);
	CHECK(mkdir(ht_path("dir\xff"), 0700) == 0 && chdir(ht_path("dir\xff")) == 0);
}

static void check(int n)
{
	char cwd[2000];

	(void)n;
	CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, ht_path("dir\xff")) == 0);
}

int main(void)
{
	ht_init();
	team_start(1, set, check);
	while (point())
		team_check();
	team_end();
	return done();
}
