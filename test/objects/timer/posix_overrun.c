/* timer_getoverrun: the expirations that the last signal stood for, and the next one when it is due */
#include "../object.h"

static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_TAI };

int main(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	timer_t id[2];
	siginfo_t info;
	sigset_t set;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < 2; i++) {
		/* It was due first four and a half hours ago. */
		struct itimerspec past = { { 3600, 0 }, ht_timespec(ht_now(clocks[i]) - 4 * 3600000000000 - 1800000000000) };

		CHECK_EQ(timer_create(clocks[i], &ev, &id[i]), 0);
		CHECK_EQ(timer_settime(id[i], TIMER_ABSTIME, &past, NULL), 0);
		CHECK_EQ(sigwaitinfo(&set, &info), SIGRTMIN);
		CHECK_EQ(info.si_overrun, 4);
	}
	while (point())
		for (int i = 0; i < 2; i++) {
			struct itimerspec got;

			CHECK_EQ(timer_getoverrun(id[i]), 4);
			CHECK_EQ(timer_gettime(id[i], &got), 0);
			CHECK(got.it_value.tv_sec > 1700 && got.it_value.tv_sec <= 1800);
			CHECK_EQ(got.it_interval.tv_sec, 3600);
			CHECK_EQ(sigtimedwait(&set, &info, &(struct timespec){ 0, 0 }), -1);
		}
	return done();
}
