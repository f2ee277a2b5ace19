/* setitimer: an ITIMER_PROF and an ITIMER_VIRTUAL that are off keep their intervals, and stay off */
#include "../object.h"
#include <sys/time.h>

int main(void)
{
	struct itimerval off = { { 0, 8000 }, { 0, 0 } }, got;
	int which[] = { ITIMER_VIRTUAL, ITIMER_PROF };
	struct timespec start, now;

	ht_init();
	for (int i = 0; i < 2; i++)
		CHECK_EQ(setitimer(which[i], &off, NULL), 0);
	while (point()) {
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(getitimer(which[i], &got), 0);
			CHECK_EQ(got.it_interval.tv_usec, 8000);
			CHECK_EQ(got.it_value.tv_sec, 0);
			CHECK_EQ(got.it_value.tv_usec, 0);
		}
		CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start), 0);
		do /* some intervals: the signal would end it */
			CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
		while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < 50000000L);
	}
	return done();
}
