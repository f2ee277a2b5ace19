/* timerfd_create: every clock, relative, periodic and one-shot, disarmed, O_NONBLOCK */
#include "../object.h"
#include <sys/timerfd.h>

int main(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME };
	struct itimerspec far = { { 31, 7 }, { 4000, 0 } }, once = { { 0, 0 }, { 3000, 0 } }, got;
	int periodic[3], single[3], off[3];
	uint64_t n;

	ht_init();
	for (int i = 0; i < 3; i++) {
		periodic[i] = timerfd_create(clocks[i], TFD_NONBLOCK);
		single[i] = timerfd_create(clocks[i], TFD_CLOEXEC);
		off[i] = timerfd_create(clocks[i], TFD_NONBLOCK);
		CHECK_EQ(timerfd_settime(periodic[i], 0, &far, NULL), 0);
		CHECK_EQ(timerfd_settime(single[i], 0, &once, NULL), 0);
	}
	while (point())
		for (int i = 0; i < 3; i++) {
			CHECK_EQ(timerfd_gettime(periodic[i], &got), 0);
			CHECK(got.it_value.tv_sec > 3900 && got.it_value.tv_sec <= 4000);
			CHECK(got.it_interval.tv_sec == 31 && got.it_interval.tv_nsec == 7);
			CHECK_EQ(timerfd_gettime(single[i], &got), 0);
			CHECK(got.it_value.tv_sec > 2900 && got.it_value.tv_sec <= 3000);
			CHECK(got.it_interval.tv_sec == 0 && got.it_interval.tv_nsec == 0);
			CHECK_EQ(read(periodic[i], &n, sizeof n), -1);
			CHECK_EQ(errno, EAGAIN);
			CHECK_EQ(fcntl(single[i], F_GETFL) & O_NONBLOCK, 0);
			CHECK_EQ(fcntl(single[i], F_GETFD), FD_CLOEXEC);
			CHECK_EQ(timerfd_gettime(off[i], &got), 0);
			CHECK(got.it_value.tv_sec == 0 && got.it_value.tv_nsec == 0);
			struct itimerspec soon = { { 0, 0 }, { 0, 1000000 } };
			CHECK_EQ(timerfd_settime(off[i], 0, &soon, NULL), 0);
			while (read(off[i], &n, sizeof n) < 0)
				ht_nap(1);
			CHECK_EQ(n, 1);
		}
	return done();
}
