/* a timer on the CPU clock of a process outside of the tree
 * refused: which is not a living one of the computation
 */
#include "../object.h"

int main(void)
{
	struct sigevent none = { .sigev_notify = SIGEV_NONE };
	struct itimerspec got;
	clockid_t clock;
	timer_t timer;

	ht_init();
	CHECK_EQ(clock_getcpuclockid(getppid(), &clock), 0);
	CHECK_EQ(timer_create(clock, &none, &timer), 0);
	while (point())
		CHECK_EQ(timer_gettime(timer, &got), 0);
	return done();
}
