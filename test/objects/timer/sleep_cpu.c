/* clock_nanosleep: on the CPU time of the process, which a restart lets begin anew */
#include "../object.h"
#include <pthread.h>

#define SLEEP 600000000
#define BURN 100000000
#define KINDS 3
static volatile int ended[KINDS];

/* What remained is written by the kernel for the first, and known to nobody for the others. */
static void *sleeper(void *arg)
{
	size_t i = (size_t)arg;
	clockid_t clocks[KINDS] = { CLOCK_PROCESS_CPUTIME_ID, CLOCK_PROCESS_CPUTIME_ID, ~(clockid_t)getpid() << 3 | 2 };
	struct timespec t = ht_timespec(SLEEP), rest;

	CHECK_EQ(syscall(SYS_clock_nanosleep, clocks[i], 0, &t, i == 0 ? &rest : NULL), 0);
	ended[i] = 1;
	return NULL;
}

static int64_t burn(int64_t ns)
{
	int64_t begin = ht_now(CLOCK_PROCESS_CPUTIME_ID), now;

	while ((now = ht_now(CLOCK_PROCESS_CPUTIME_ID)) - begin < ns)
		;
	return now - begin;
}

int main(void)
{
	pthread_t t[KINDS];
	int64_t burnt = 0;

	ht_init();
	for (size_t i = 0; i < KINDS; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, sleeper, (void *)i), 0);
	ht_nap(SLEEP / 1000000 + 100); /* time that is no CPU time */
	while (point()) {
		burnt += burn(BURN);
		for (int i = 0; i < KINDS; i++)
			CHECK_EQ(ended[i], 0);
	}
	for (int i = 0; i < KINDS; i++) {
		/* Some is used outside of burn; and a sleep of which nobody knows what remained begins anew. */
		while (!ended[i])
			CHECK((burnt += burn(1000000)) < (i == 0 ? SLEEP + BURN : 3 * SLEEP));
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	}
	return done();
}
