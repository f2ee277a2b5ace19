/* a timer on the CPU clock of a thread that has ended
 * refused: which has ended
 */
#include "../object.h"
#include <pthread.h>

static int stop[2];

static void *waits(void *unused)
{
	char c;

	CHECK_EQ(read(stop[0], &c, 1), 0);
	return unused;
}

int main(void)
{
	struct sigevent none = { .sigev_notify = SIGEV_NONE };
	struct itimerspec got;
	clockid_t clock;
	timer_t timer;
	pthread_t t;

	ht_init();
	CHECK_EQ(pipe(stop), 0);
	CHECK_EQ(pthread_create(&t, NULL, waits, NULL), 0);
	CHECK_EQ(pthread_getcpuclockid(t, &clock), 0);
	CHECK_EQ(timer_create(clock, &none, &timer), 0);
	close(stop[1]);
	CHECK_EQ(pthread_join(t, NULL), 0);
	while (point())
		CHECK_EQ(timer_gettime(timer, &got), 0);
	return done();
}
