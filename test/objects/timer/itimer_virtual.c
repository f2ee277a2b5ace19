/* setitimer: ITIMER_VIRTUAL counts the time of the processor on, and none while the program does not run */
#include "../object.h"
#include <sys/time.h>

static volatile sig_atomic_t signals;
static void on_signal(int sig) { (void)sig; signals++; }

int main(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct itimerval hour = { { 7, 9000 }, { 3600, 0 } }, often = { { 0, 8000 }, { 0, 8000 } }, got;
	long last = 3601;

	ht_init();
	sigaction(SIGVTALRM, &sa, NULL);
	CHECK_EQ(setitimer(ITIMER_VIRTUAL, &hour, NULL), 0);
	while (point()) {
		CHECK_EQ(getitimer(ITIMER_VIRTUAL, &got), 0);
		CHECK_EQ(got.it_interval.tv_sec, 7);
		CHECK_EQ(got.it_interval.tv_usec, 9000);
		CHECK(got.it_value.tv_sec > 3600 - 60 && got.it_value.tv_sec <= last);
		last = got.it_value.tv_sec + 1;
		CHECK_EQ(signals, 0);
	}
	CHECK_EQ(setitimer(ITIMER_VIRTUAL, &often, NULL), 0);
	while (signals < 2) /* what it counts is spent here */
		;
	return done();
}
