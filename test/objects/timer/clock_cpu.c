/* CPU clocks: those of the process and of a thread, by id and by pid, grow, and agree with getrusage */
#include "../object.h"
#include <pthread.h>
#include <sys/resource.h>

static volatile int finish;

static void *thread(void *unused)
{
	while (!finish)
		ht_nap(5);
	return unused;
}

static void spend(clockid_t clock, int64_t ns)
{
	for (int64_t begin = ht_now(clock); ht_now(clock) < begin + ns;)
		;
}

int main(void)
{
	clockid_t process, other;
	struct rusage u;
	pthread_t t;

	ht_init();
	CHECK_EQ(pthread_create(&t, NULL, thread, NULL), 0);
	CHECK_EQ(clock_getcpuclockid(getpid(), &process), 0);
	CHECK_EQ(pthread_getcpuclockid(t, &other), 0);
	while (point()) {
		spend(CLOCK_THREAD_CPUTIME_ID, 5000000);
		spend(process, 5000000);
		int64_t a = ht_now(CLOCK_PROCESS_CPUTIME_ID), b = ht_now(process);
		CHECK(a <= b && a >= 10000000);
		CHECK(ht_now(other) >= 0 && ht_now(other) < a + 1000000000);
		CHECK_EQ(getrusage(RUSAGE_SELF, &u), 0);
		int64_t used = (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL;
		CHECK(used >= a - 1000000);
	}
	finish = 1;
	pthread_join(t, NULL);
	return done();
}
