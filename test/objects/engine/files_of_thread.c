/* a thread with a table of descriptors of its own, unshare(2) with CLONE_FILES
 * refused: descriptor table of its own
 */
#include "../object.h"
#include "team.h"
#include <sched.h>

static int own;

static void set(int n)
{
	(void)n;
	CHECK(unshare(CLONE_FILES) == 0);
	own = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK(own >= 0);
}

static void check(int n) { CHECK(fcntl(own, F_GETFD) == n); }

int main(void)
{
	ht_init();
	team_start(1, set, check);
	while (point()) {
		CHECK(fcntl(own, F_GETFD) == -1);
		team_check();
	}
	team_end();
	return done();
}
