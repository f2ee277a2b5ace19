/* prctl(2) of threads: timer slack, MCE policy, TSC, parent-death signal, name, each with its own value
 * alone: it has asked for a signal at the death of its parent
 */
#include "../object.h"
#include "team.h"
#include <sys/prctl.h>

static void set(int n)
{
	char name[16];

	snprintf(name, sizeof name, "thread) %d", n);
	CHECK(prctl(PR_SET_NAME, name) == 0);
	CHECK(prctl(PR_SET_TIMERSLACK, 1000 + n) == 0);
	CHECK(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, n % 3, 0, 0) == 0);
	CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1 + n) == 0);
#ifdef __x86_64__
	if (n == 2)
		CHECK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
#endif
}

static void check(int n)
{
	char want[16], name[16];
	int sig;

	snprintf(want, sizeof want, "thread) %d", n);
	CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, want) == 0);
	CHECK_EQ(prctl(PR_GET_TIMERSLACK), 1000 + n);
	CHECK_EQ(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), n % 3);
	CHECK(prctl(PR_GET_PDEATHSIG, &sig) == 0);
	CHECK_EQ(sig, SIGUSR1 + n);
#ifdef __x86_64__
	CHECK(prctl(PR_GET_TSC, &sig) == 0);
	CHECK_EQ(sig, n == 2 ? PR_TSC_SIGSEGV : PR_TSC_ENABLE);
#endif
}

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
