/* timer_create: SIGEV_SIGNAL with a pointer, no sigevent at all, SIGEV_NONE, SIGEV_THREAD of the C library */
#include "../object.h"

static volatile int called;
static void call(union sigval v) { CHECK(v.sival_ptr == (void *)&called); __atomic_add_fetch(&called, 1, __ATOMIC_SEQ_CST); }

int main(void)
{
	struct itimerspec often = { { 0, 5000000 }, { 0, 5000000 } }, got;
	struct sigevent sig = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2, .sigev_value.sival_ptr = (void *)0x7123456789abcdef };
	struct sigevent none = { .sigev_notify = SIGEV_NONE };
	struct sigevent thread = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = call, .sigev_value.sival_ptr = (void *)&called };
	timer_t by_signal, plain, silent, by_thread;
	siginfo_t info;
	sigset_t set;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	CHECK_EQ(timer_create(CLOCK_MONOTONIC, &sig, &by_signal), 0);
	CHECK_EQ(timer_create(CLOCK_MONOTONIC, NULL, &plain), 0);
	CHECK_EQ(timer_create(CLOCK_MONOTONIC, &none, &silent), 0);
	CHECK_EQ(timer_create(CLOCK_MONOTONIC, &thread, &by_thread), 0);
	CHECK_EQ(timer_settime(by_thread, 0, &often, NULL), 0);
	CHECK_EQ(timer_settime(silent, 0, &often, NULL), 0);
	while (point()) {
		int before = called, shot = 0;
		struct itimerspec once = { { 0, 0 }, { 0, 1000000 } };

		CHECK_EQ(timer_gettime(silent, &got), 0);
		CHECK_EQ(got.it_interval.tv_nsec, 5000000);
		CHECK_EQ(timer_settime(by_signal, 0, &once, NULL), 0);
		CHECK_EQ(timer_settime(plain, 0, &once, NULL), 0);
		while (shot != 3) {
			int signo = sigwaitinfo(&set, &info);

			CHECK_EQ(info.si_code, SI_TIMER);
			if (signo == SIGUSR2)
				CHECK(info.si_value.sival_ptr == sig.sigev_value.sival_ptr);
			else
				CHECK_EQ(info.si_timerid, (int)(intptr_t)plain);
			shot |= signo == SIGUSR2 ? 1 : 2;
		}
		while (called < before + 2)
			ht_nap(1);
	}
	return done();
}
