/* timerfd: expirations that nobody has read, of a one-shot and of a periodic timer */
#include "../object.h"
#include <poll.h>
#include <sys/timerfd.h>

#define PERIOD 2000000
#define LATE 50000000

int main(void)
{
	struct itimerspec once = { { 0, 0 }, { 0, 1 } }, often = { { 0, PERIOD }, { 0, PERIOD } };
	uint64_t n;

	ht_init();
	int single = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), periodic = timerfd_create(CLOCK_MONOTONIC, 0);
	CHECK_EQ(timerfd_settime(single, 0, &once, NULL), 0);
	int64_t begin = ht_now(CLOCK_MONOTONIC), total = 0;
	CHECK_EQ(timerfd_settime(periodic, 0, &often, NULL), 0);
	while (point()) {
		struct pollfd p[] = { { single, POLLIN, 0 }, { periodic, POLLIN, 0 } };

		ht_nap(10);
		CHECK_EQ(poll(p, 2, 0), 2);
		CHECK_EQ(read(single, &n, sizeof n), sizeof n);
		CHECK_EQ(n, 1);
		CHECK_EQ(read(single, &n, sizeof n), -1);
		CHECK_EQ(timerfd_settime(single, 0, &once, NULL), 0);
		int64_t before = ht_now(CLOCK_MONOTONIC) - begin;
		CHECK_EQ(read(periodic, &n, sizeof n), sizeof n);
		int64_t after = ht_now(CLOCK_MONOTONIC) - begin;
		/* Never one too many; and those that fell into a restart, but for what setting a timer takes. */
		CHECK((total += n) <= after / PERIOD);
		CHECK(total >= (before - LATE) / PERIOD);
	}
	return done();
}
