/* personality(2): no address randomization; of other threads something else */
#include "../object.h"
#include "team.h"
#include <sys/personality.h>

static const unsigned long want[] = { ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT | STICKY_TIMEOUTS, UNAME26 };

static void set(int n) { CHECK(personality(want[n]) != -1); }
static void check(int n) { CHECK_EQ(personality(0xffffffff), want[n]); }

int main(void)
{
	ht_init();
	team_start(2, set, check);
	set(0);
	while (point()) {
		check(0);
		team_check();
	}
	team_end();
	return done();
}
