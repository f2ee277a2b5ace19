/* timer_create: every clock that a timer may have without privileges, what remains and the interval */
#include "../object.h"

static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID };
#define CLOCKS (int)(sizeof clocks / sizeof clocks[0])

int main(void)
{
	struct itimerspec far = { { 11, 22 }, { 5000, 1 } }, off = { 0 }, got;
	struct sigevent none = { .sigev_notify = SIGEV_NONE }, ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	struct timespec wait = { 20, 0 };
	timer_t armed[CLOCKS], idle[CLOCKS], quiet;
	sigset_t set;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < CLOCKS; i++) {
		ev.sigev_value.sival_int = 100 + i;
		CHECK_EQ(timer_create(clocks[i], &ev, &armed[i]), 0);
		CHECK_EQ(timer_create(clocks[i], &ev, &idle[i]), 0);
		CHECK_EQ(timer_settime(armed[i], 0, &far, NULL), 0);
	}
	CHECK_EQ(timer_create(CLOCK_MONOTONIC, &none, &quiet), 0);
	CHECK_EQ(timer_settime(quiet, 0, &far, NULL), 0);
	while (point()) {
		siginfo_t info;

		CHECK_EQ(timer_gettime(quiet, &got), 0);
		CHECK(got.it_interval.tv_sec == 11 && got.it_value.tv_sec > 4900);
		for (int i = 0; i < CLOCKS; i++) {
			struct itimerspec soon = { { 0, 0 }, { 0, 2000000 } };

			CHECK_EQ(timer_gettime(armed[i], &got), 0);
			CHECK_EQ(got.it_interval.tv_sec, 11);
			CHECK_EQ(got.it_interval.tv_nsec, 22);
			CHECK(got.it_value.tv_sec > 4900 && got.it_value.tv_sec <= 5000);
			CHECK_EQ(timer_gettime(idle[i], &got), 0);
			CHECK(memcmp(&got, &off, sizeof got) == 0);
			CHECK_EQ(timer_settime(idle[i], 0, &soon, NULL), 0);
			while (i >= 4 && timer_gettime(idle[i], &got) == 0 && (got.it_value.tv_sec || got.it_value.tv_nsec))
				; /* it counts what is spent here */
			CHECK_EQ(sigtimedwait(&set, &info, &wait), SIGRTMIN);
			CHECK_EQ(info.si_code, SI_TIMER);
			CHECK_EQ(info.si_value.sival_int, 100 + i);
		}
	}
	return done();
}
