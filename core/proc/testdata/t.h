// What the programs of the tests have in common. A program says "ready" when it stands as
// the test wants it, answers a line for each line it reads, and ends with a line
// "FAIL ..." where it finds itself changed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(cond)                                                                              \
	do {                                                                                     \
		if (!(cond)) {                                                                   \
			dprintf(1, "FAIL %s:%d: %s (errno %d)\n", __FILE__, __LINE__, #cond, errno); \
			_exit(1);                                                                \
		}                                                                                \
	} while (0)

static inline void ready(void) { CHECK(write(1, "ready\n", 6) == 6); }

// command reads a line into a buffer of 256 bytes, and ends the program at the end of input.
static inline char *command(char *line)
{
	for (int n = 0; n < 255; n++) {
		ssize_t r = read(0, line + n, 1);
		CHECK(r >= 0);
		if (r == 0)
			_exit(0);
		if (line[n] == '\n') {
			line[n] = 0;
			return line;
		}
	}
	CHECK(!"the line is too long");
	return 0;
}

static inline double now(clockid_t clock)
{
	struct timespec t;
	CHECK(clock_gettime(clock, &t) == 0);
	return t.tv_sec + t.tv_nsec / 1e9;
}
