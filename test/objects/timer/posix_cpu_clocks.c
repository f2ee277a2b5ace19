/* timer_create on the CPU clocks of a thread, of the process and of a child, by their ids */
#include "../object.h"
#include <pthread.h>
#include <sys/wait.h>

static int stop[2];

static void *waits(void *unused)
{
	char c;

	CHECK_EQ(read(stop[0], &c, 1), 0);
	return unused;
}

int main(void)
{
	struct itimerspec far = { { 11, 22 }, { 5000, 1 } }, got;
	struct sigevent none = { .sigev_notify = SIGEV_NONE };
	clockid_t clocks[3];
	timer_t timers[3];
	pthread_t t;

	ht_init();
	CHECK_EQ(pipe(stop), 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		close(stop[1]);
		waits(NULL);
		_exit(0);
	}
	CHECK_EQ(pthread_create(&t, NULL, waits, NULL), 0);
	CHECK_EQ(pthread_getcpuclockid(t, &clocks[0]), 0);
	CHECK_EQ(clock_getcpuclockid(getpid(), &clocks[1]), 0);
	CHECK_EQ(clock_getcpuclockid(child, &clocks[2]), 0);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(timer_create(clocks[i], &none, &timers[i]), 0);
		CHECK_EQ(timer_settime(timers[i], 0, &far, NULL), 0);
	}
	while (point())
		for (int i = 0; i < 3; i++) {
			CHECK_EQ(timer_gettime(timers[i], &got), 0);
			CHECK_EQ(got.it_interval.tv_sec, 11);
			CHECK(got.it_value.tv_sec > 4900 && got.it_value.tv_sec <= 5000);
		}
	close(stop[1]);
	CHECK_EQ(pthread_join(t, NULL), 0);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	return done();
}
