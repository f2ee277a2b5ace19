/* At "clocks" it reads every clock by the vdso and by the call, by turns: none goes back. */
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }

static long long by_call(clockid_t clock)
{
	struct timespec t;
	return syscall(SYS_clock_gettime, clock, &t) ? -1 : nanoseconds(t);
}

static long long by_vdso(clockid_t clock)
{
	struct timespec t;
	return clock_gettime(clock, &t) ? -1 : nanoseconds(t);
}

static const char *look(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME_COARSE };

	for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
		for (int n = 0; n < 1000; n++) {
			long long a = by_call(clocks[i]), b = by_vdso(clocks[i]), c = by_call(clocks[i]);

			if (a < 0 || b < a || c < b)
				return "a clock goes back";
		}
	}
	struct timeval tv;
	long long now = by_call(CLOCK_REALTIME) / 1000;
	if (gettimeofday(&tv, NULL) || tv.tv_sec * 1000000LL + tv.tv_usec < now || tv.tv_sec * 1000000LL + tv.tv_usec > now + 60000000)
		return "gettimeofday is wrong";
	if (time(NULL) < now / 1000000 - 1)
		return "time is wrong";
	return "clocks right";
}

int main(void)
{
	char line[64];

	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		if (!strcmp(line, "clocks\n"))
			puts(look());
		puts("ready");
		fflush(stdout);
	}
	return 0;
}
