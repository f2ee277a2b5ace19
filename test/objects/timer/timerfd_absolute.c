/* timerfd_settime: TFD_TIMER_ABSTIME keeps its time on each clock, also with TFD_TIMER_CANCEL_ON_SET */
#include "../object.h"
#include <sys/timerfd.h>

int main(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME };
	int64_t deadline[4];
	int fd[4];

	ht_init();
	for (int i = 0; i < 4; i++) {
		struct itimerspec at = { 0 };

		fd[i] = timerfd_create(clocks[i], 0);
		deadline[i] = ht_now(clocks[i]) + 3600000000000;
		at.it_value = ht_timespec(deadline[i]);
		CHECK_EQ(timerfd_settime(fd[i], TFD_TIMER_ABSTIME | (i == 3 ? TFD_TIMER_CANCEL_ON_SET : 0), &at, NULL), 0);
	}
	while (point()) {
		for (int i = 0; i < 4; i++) {
			struct itimerspec got;

			CHECK_EQ(timerfd_gettime(fd[i], &got), 0);
			int64_t expires = ht_now(clocks[i]) + got.it_value.tv_sec * 1000000000 + got.it_value.tv_nsec;
			/* The two calls do not look at one moment. */
			CHECK(expires > deadline[i] - 50000000 && expires < deadline[i] + 1000000000);
		}
		char path[40], text[600] = "";
		snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd[3]);
		int f = open(path, O_RDONLY);
		CHECK(read(f, text, sizeof text - 1) > 0);
		close(f);
		CHECK(strstr(text, "settime flags: 03"));
	}
	return done();
}
