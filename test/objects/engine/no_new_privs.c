/* no_new_privs of one thread, and not of the other */
#include "../object.h"
#include "team.h"
#include <sys/prctl.h>

static void set(int n) { CHECK(prctl(PR_SET_NO_NEW_PRIVS, n, 0, 0, 0) == 0); }
static void check(int n) { CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), n); }

int main(void)
{
	ht_init();
	team_start(1, set, check);
	while (point()) {
		check(0);
		team_check();
	}
	team_end();
	return done();
}
