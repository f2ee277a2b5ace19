/* scheduling policies that an ordinary user may choose: batch and idle */
#include "../object.h"
#include "team.h"
#include <sched.h>

static const int want[] = { SCHED_BATCH | SCHED_RESET_ON_FORK, SCHED_IDLE, SCHED_OTHER };

static void set(int n)
{
	struct sched_param p = { 0 };

	CHECK(sched_setscheduler(0, want[n], &p) == 0);
}

static void check(int n) { CHECK_EQ(sched_getscheduler(0), want[n]); }

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
