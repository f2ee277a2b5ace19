/* perf_event_open: a counter of the process itself
 * refused: perf_event_open(2)
 */
#include "../object.h"
#include <linux/perf_event.h>

int main(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK,
		.exclude_kernel = 1, .exclude_hv = 1 };
	uint64_t n;

	ht_init();
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	CHECK(fd >= 0);
	while (point())
		CHECK_EQ(read(fd, &n, sizeof n), sizeof n);
	return done();
}
