/* clock_gettime: by the vdso and by the call, the same on every clock; the monotonic ones never go back */
#include "../object.h"

static int64_t by_call(clockid_t clock)
{
	struct timespec t;

	CHECK_EQ(syscall(SYS_clock_gettime, clock, &t), 0);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_MONOTONIC_RAW,
		CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE };
	int64_t last[7] = { 0 };

	ht_init();
	do {
		for (int i = 0; i < 7; i++) {
			/* By turns, twice: none may be before the one read before it. */
			int64_t a = by_call(clocks[i]), b = ht_now(clocks[i]), c = by_call(clocks[i]), d = ht_now(clocks[i]);

			CHECK(a <= b && b <= c && c <= d);
			CHECK(a >= last[i]);
			last[i] = d;
		}
		/* The boot clock is ahead of the monotonic one by the time asleep. */
		CHECK(ht_now(CLOCK_BOOTTIME) >= by_call(CLOCK_MONOTONIC) - 1000000000);
	} while (point());
	return done();
}
