/* setitimer: ITIMER_REAL keeps what remains and its interval, and its signal keeps coming */
#include "../object.h"
#include <sys/time.h>

static volatile sig_atomic_t alarms;
static void on_alarm(int sig) { (void)sig; alarms++; }

int main(void)
{
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval often = { { 0, 10007 }, { 0, 10007 } }, got;

	ht_init();
	sigaction(SIGALRM, &sa, NULL);
	CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
	while (point()) {
		CHECK_EQ(getitimer(ITIMER_REAL, &got), 0);
		CHECK_EQ(got.it_interval.tv_sec, 0);
		CHECK_EQ(got.it_interval.tv_usec, 10007);
		CHECK(got.it_value.tv_sec == 0 && got.it_value.tv_usec <= 10007);
		for (int a = alarms; alarms < a + 3;)
			ht_nap(1);
	}
	return done();
}
