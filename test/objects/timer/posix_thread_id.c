/* timer_create: SIGEV_THREAD_ID, of a thread that is no leader, on the monotonic clock and on the thread's own */
#include "../object.h"
#include <pthread.h>

static volatile int finish, ticks[2];
static volatile pid_t tid;
static pthread_barrier_t barrier;
static int id[2];

static void on_tick(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	CHECK_EQ(syscall(SYS_gettid), tid);
	CHECK_EQ(info->si_code, SI_TIMER);
	ticks[info->si_value.sival_int]++;
}

static void *thread(void *unused)
{
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID };
	struct itimerspec often = { { 0, 3000000 }, { 0, 3000000 } };

	tid = syscall(SYS_gettid);
	for (int i = 0; i < 2; i++) {
		struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1, .sigev_value.sival_int = i };

		ev._sigev_un._tid = tid;
		CHECK_EQ(syscall(SYS_timer_create, clocks[i], &ev, &id[i]), 0);
		CHECK_EQ(syscall(SYS_timer_settime, id[i], 0, &often, NULL), 0);
	}
	pthread_barrier_wait(&barrier);
	while (!finish)
		;
	return unused;
}

int main(void)
{
	struct sigaction sa = { .sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART };
	pthread_t t;

	ht_init();
	sigaction(SIGUSR1, &sa, NULL);
	pthread_barrier_init(&barrier, NULL, 2);
	CHECK_EQ(pthread_create(&t, NULL, thread, NULL), 0);
	pthread_barrier_wait(&barrier);
	while (point()) {
		int before[2] = { ticks[0], ticks[1] };
		struct itimerspec got;

		while (ticks[0] < before[0] + 2 || ticks[1] < before[1] + 2)
			ht_nap(1);
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(syscall(SYS_timer_gettime, id[i], &got), 0);
			CHECK_EQ(got.it_interval.tv_nsec, 3000000);
		}
	}
	finish = 1;
	pthread_join(t, NULL);
	return done();
}
