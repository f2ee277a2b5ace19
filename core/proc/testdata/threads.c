// A program with as many threads, child processes and further mappings as its arguments
// say. All wait.
#include "t.h"

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

// map makes n mappings of a page that has content: neighbours differ in their protection.
static void map(long n)
{
	long page = sysconf(_SC_PAGESIZE);
	char *at = mmap(0, n * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	for (long i = 0; i < n; i++) {
		at[i * page] = 1;
		if (i % 2)
			CHECK(mprotect(at + i * page, page, PROT_READ) == 0);
	}
}

int main(int argc, char **argv)
{
	pthread_attr_t small;
	pthread_t t;
	CHECK(argc >= 2 && pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 128 << 10) == 0);
	for (int i = 1; argc > 2 && i < atoi(argv[2]); i++) {
		pid_t c = fork();
		CHECK(c >= 0);
		if (c == 0) {
			CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
			idle(0);
		}
	}
	if (argc > 3 && atol(argv[3]) > 0)
		map(atol(argv[3]));
	for (int i = 1; i < atoi(argv[1]); i++)
		CHECK(pthread_create(&t, &small, idle, 0) == 0);
	ready();
	for (char line[256];;)
		command(line);
}
