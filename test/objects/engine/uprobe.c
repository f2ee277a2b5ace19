/* a uprobe, as tracers set them, that the program has hit
 * as: root
 * refused: uprobe
 */
#include "../object.h"
#include <linux/perf_event.h>

static volatile int calls;

__attribute__((noinline)) static void probed(void) { calls++; }

/* file_offset finds where a function stands in the program's file. */
static uint64_t file_offset(void (*f)(void))
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end, offset, at = (unsigned long)f;
	char line[600];

	CHECK(maps);
	while (fgets(line, sizeof line, maps))
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 && start <= at && at < end) {
			fclose(maps);
			return at - start + offset;
		}
	FAIL("no mapping of the program");
}

int main(void)
{
	struct perf_event_attr attr = { .size = sizeof attr };
	char path[1024];
	int type;

	ht_init();
	FILE *f = fopen("/sys/bus/event_source/devices/uprobe/type", "re");
	CHECK(f && fscanf(f, "%d", &type) == 1 && fclose(f) == 0);
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	CHECK(n > 0);
	path[n] = 0;
	attr.type = type;
	attr.config1 = (uintptr_t)path;
	attr.config2 = file_offset(probed);
	CHECK(syscall(SYS_perf_event_open, &attr, getpid(), -1, -1, PERF_FLAG_FD_CLOEXEC) >= 0);
	probed();
	for (int i = 2; point(); i++) {
		probed();
		CHECK_EQ(calls, i);
	}
	return done();
}
