/* What calls cost: nanoseconds each, as a JSON object. */
#include "raw.h"
#include <sys/syscall.h>

static volatile sig_atomic_t got;
static void handler(int sig) { got += sig; }
static void *none(void *arg) { return arg; }

#define MEASURE(name, n, what) do { \
	double best = 1e9; \
	for (int round = 0; round < 5; round++) { \
		double t = now(); \
		for (int i = 0; i < (n); i++) { what; } \
		t = (now() - t) / (n); \
		if (t < best) best = t; \
	} \
	printf("%s\"%s\": %.1f", sep, name, best * 1e9); sep = ", "; \
} while (0)

static void fork_exec(void)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

static void thread(void)
{
	pthread_t t;
	if (pthread_create(&t, NULL, none, NULL) != 0)
		DIE("thread");
	pthread_join(t, NULL);
}

int main(void)
{
	const char *sep = "{";
	signal(SIGUSR1, handler);
	MEASURE("getpid", 300000, syscall(SYS_getpid));
	MEASURE("open_close", 50000, close(open("/dev/null", O_RDONLY)));
	MEASURE("signal", 50000, raise(SIGUSR1));
	MEASURE("thread", 2000, thread());
	MEASURE("fork_exec", 100, fork_exec());
	printf("}\n");
	return 0;
}
