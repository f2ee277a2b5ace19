/* timer_create, timerfd_create: the alarm clocks, which need CAP_WAKE_ALARM
 * as: root
 */
#include "../object.h"
#include <sys/timerfd.h>

int main(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM };
	struct itimerspec far = { { 3, 0 }, { 5000, 0 } }, got;
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	timer_t id[2];
	int fd[2];

	ht_init();
	for (int i = 0; i < 2; i++) {
		fd[i] = timerfd_create(clocks[i], 0);
		CHECK(fd[i] >= 0);
		CHECK_EQ(timerfd_settime(fd[i], 0, &far, NULL), 0);
		/* Without a clock that can wake the machine there is none. */
		if (timer_create(clocks[i], &ev, &id[i]) != 0) {
			CHECK(errno == EOPNOTSUPP);
			id[i] = NULL;
			fd[i] = -fd[i];
		} else {
			CHECK_EQ(timer_settime(id[i], 0, &far, NULL), 0);
		}
	}
	while (point())
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(timerfd_gettime(abs(fd[i]), &got), 0);
			CHECK(got.it_value.tv_sec > 4900 && got.it_value.tv_sec <= 5000 && got.it_interval.tv_sec == 3);
			if (fd[i] < 0)
				continue;
			CHECK_EQ(timer_gettime(id[i], &got), 0);
			CHECK(got.it_value.tv_sec > 4900 && got.it_interval.tv_sec == 3);
		}
	return done();
}
