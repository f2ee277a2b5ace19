/* timer_create: a pending signal stands for all expirations until it is taken */
#include "../object.h"
#include <sys/signalfd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
#define TIMERS 4

int main(void)
{
	const clockid_t clocks[TIMERS] = { CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC };
	struct itimerspec often = { { 0, 100000000 }, { 0, 100000000 } }, once = { { 0, 0 }, { 0, 1000000 } };
	struct signalfd_siginfo info[8];
	timer_t id[TIMERS];
	sigset_t set;
	int fd[TIMERS];

	ht_init();
	sigemptyset(&set);
	for (int i = 0; i < TIMERS; i++)
		sigaddset(&set, SIGRTMIN + i);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	for (int i = 0; i < TIMERS; i++) {
		struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + i, .sigev_value.sival_int = 70 + i };

		if (i == 2) {
			ev.sigev_notify = SIGEV_THREAD_ID;
			ev.sigev_notify_thread_id = gettid();
		}
		CHECK_EQ(timer_create(clocks[i], &ev, &id[i]), 0);
		CHECK_EQ(timer_settime(id[i], 0, i == 3 ? &once : &often, NULL), 0);
		sigemptyset(&set);
		sigaddset(&set, SIGRTMIN + i);
		CHECK((fd[i] = signalfd(-1, &set, SFD_NONBLOCK)) >= 0);
	}
	ht_nap(150);
	while (point()) {
		ht_nap(350);
		for (int i = 0; i < TIMERS; i++) {
			/* In one call, before the next is due. */
			CHECK_EQ(read(fd[i], info, sizeof info), sizeof info[0]);
			CHECK_EQ(info[0].ssi_signo, SIGRTMIN + i);
			CHECK_EQ(info[0].ssi_code, SI_TIMER);
			CHECK_EQ(info[0].ssi_int, 70 + i);
			CHECK_EQ(timer_getoverrun(id[i]), (int)info[0].ssi_overrun);
			if (i == 3) {
				CHECK_EQ(info[0].ssi_overrun, 0);
				CHECK_EQ(timer_settime(id[i], 0, &once, NULL), 0);
			} else
				CHECK(info[0].ssi_overrun >= 3);
		}
		ht_nap(150);
	}
	return done();
}
