/* I/O priorities: best effort, and idle in another thread */
#include "../object.h"
#include "team.h"
#include <linux/ioprio.h>

static int want(int n)
{
	return n == 0 ? IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6) : IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0);
}

static void set(int n) { CHECK(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, want(n)) == 0); }
static void check(int n) { CHECK_EQ(syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) | n, want(n) | n); }

int main(void)
{
	ht_init();
	team_start(1, set, check);
	set(0);
	while (point()) {
		check(0);
		team_check();
	}
	team_end();
	return done();
}
