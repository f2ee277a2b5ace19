/* threads with masks of blocked signals and pending signals of their own */
#include "../object.h"
#include "team.h"

static void set(int n)
{
	sigset_t s;

	sigemptyset(&s);
	for (int i = 0; i < 3; i++)
		sigaddset(&s, SIGRTMIN + 3 * n + i);
	CHECK(pthread_sigmask(SIG_SETMASK, &s, NULL) == 0);
	CHECK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGRTMIN + 3 * n) == 0);
}

static void check(int n)
{
	sigset_t s;

	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &s) == 0);
	for (int i = SIGRTMIN; i < SIGRTMIN + 12; i++)
		CHECK_EQ(sigismember(&s, i), (i - SIGRTMIN) / 3 == n);
	CHECK(sigpending(&s) == 0);
	for (int i = SIGRTMIN; i < SIGRTMIN + 12; i++)
		CHECK_EQ(sigismember(&s, i), i == SIGRTMIN + 3 * n);
}

int main(void)
{
	ht_init();
	team_start(3, set, check);
	set(0);
	while (point()) {
		check(0);
		team_check();
	}
	team_end();
	return done();
}
