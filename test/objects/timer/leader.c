/* the timers of a process whose first thread has ended: that is in no time namespace any more */
#include "../object.h"
#include <pthread.h>
#include <sys/time.h>

static pthread_t leader;

static void *rest(void *arg)
{
	struct itimerval hour = { { 0, 0 }, { 3600, 0 } }, got;

	CHECK_EQ(pthread_join(leader, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &hour, NULL), 0);
	while (point()) {
		CHECK_EQ(getitimer(ITIMER_REAL, &got), 0);
		CHECK(got.it_value.tv_sec > 3600 - 60);
	}
	exit(done());
	return arg;
}

int main(void)
{
	pthread_t t;

	ht_init();
	leader = pthread_self();
	CHECK_EQ(pthread_create(&t, NULL, rest, NULL), 0);
	pthread_exit(NULL);
}
