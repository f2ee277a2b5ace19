/* nice values, of the process and, as Linux has them, of its threads */
#include "../object.h"
#include "team.h"
#include <sys/resource.h>

static void set(int n) { CHECK(setpriority(PRIO_PROCESS, syscall(SYS_gettid), 4 + 3 * n) == 0); }
static void check(int n) { CHECK_EQ(getpriority(PRIO_PROCESS, syscall(SYS_gettid)), 4 + 3 * n); }

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
