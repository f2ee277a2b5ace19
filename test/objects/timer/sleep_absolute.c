/* clock_nanosleep: absolute sleeps on every clock end when that clock says so */
#include "../object.h"
#include <pthread.h>

static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI };
#define KINDS (sizeof clocks / sizeof clocks[0])
static volatile int finish, rounds[KINDS];

static void *sleeper(void *arg)
{
	size_t i = (size_t)arg;

	while (!finish) {
		int64_t until = ht_now(clocks[i]) + 700000000;
		struct timespec t = ht_timespec(until);

		CHECK_EQ(clock_nanosleep(clocks[i], TIMER_ABSTIME, &t, NULL), 0);
		CHECK(ht_now(clocks[i]) >= until);
		rounds[i]++;
	}
	return NULL;
}

int main(void)
{
	pthread_t t[KINDS];

	ht_init();
	for (size_t i = 0; i < KINDS; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, sleeper, (void *)i), 0);
	while (point())
		for (size_t i = 0; i < KINDS; i++)
			for (int r = rounds[i]; rounds[i] == r;)
				ht_nap(5);
	finish = 1;
	for (size_t i = 0; i < KINDS; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	return done();
}
