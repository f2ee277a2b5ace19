/* nanosleep, clock_nanosleep: relative sleeps on every clock end neither early nor with EINTR */
#include "../object.h"
#include <pthread.h>

static const clockid_t clocks[] = { -1, CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI };
#define KINDS (sizeof clocks / sizeof clocks[0])
static volatile int finish, rounds[KINDS];

static void *sleeper(void *arg)
{
	size_t i = (size_t)arg;

	while (!finish) {
		struct timespec t = { 0, 700000000 }, rest = { -1, -1 };
		int64_t begin = ht_now(CLOCK_MONOTONIC);

		if (i == 0)
			CHECK_EQ(nanosleep(&t, &rest), 0);
		else
			CHECK_EQ(clock_nanosleep(clocks[i], 0, &t, NULL), 0);
		CHECK(ht_now(CLOCK_MONOTONIC) - begin >= 700000000 - 1000000);
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
