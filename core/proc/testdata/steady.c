// A program that must notice nothing: threads that compute in registers, block in system
// calls, and watch masks and signal dispositions. Each answers "FAIL" where it finds a
// difference. The first argument is SIGTRAP's disposition: default, ignore, handler.
#include "t.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

static volatile long rounds[4];
static volatile sig_atomic_t traps;
static sigset_t odd; // the mask of all threads

static void on_trap(int sig) { traps++; }
static void on_usr(int sig) {}

static void same_mask(void)
{
	sigset_t s;
	CHECK(pthread_sigmask(SIG_BLOCK, 0, &s) == 0);
	for (int sig = 1; sig < 32; sig++)
		CHECK(sigismember(&s, sig) == sigismember(&odd, sig));
}

#ifdef __x86_64__
// registers fills all general registers with known values, counts, and compares.
static void registers(void)
{
	long bad;
	__asm__ volatile(
		"push %%rbp\n push %%rbx\n"
		"movabs $0x1111111111111111, %%rbx\n mov %%rbx, %%r8\n inc %%r8\n mov %%rbx, %%r9\n add $2, %%r9\n"
		"mov %%rbx, %%r10\n add $3, %%r10\n mov %%rbx, %%r11\n add $4, %%r11\n mov %%rbx, %%r12\n add $5, %%r12\n"
		"mov %%rbx, %%r13\n add $6, %%r13\n mov %%rbx, %%r14\n add $7, %%r14\n mov %%rbx, %%r15\n add $8, %%r15\n"
		"mov %%rbx, %%rdx\n add $9, %%rdx\n mov %%rbx, %%rsi\n add $10, %%rsi\n mov %%rbx, %%rdi\n add $11, %%rdi\n"
		"mov %%rbx, %%rbp\n add $12, %%rbp\n"
		"mov $200000, %%ecx\n 1: dec %%ecx\n jnz 1b\n"
		"xor %%eax, %%eax\n"
		"sub %%rbx, %%r8\n cmp $1, %%r8\n jne 2f\n sub %%rbx, %%r9\n cmp $2, %%r9\n jne 2f\n"
		"sub %%rbx, %%r10\n cmp $3, %%r10\n jne 2f\n sub %%rbx, %%r11\n cmp $4, %%r11\n jne 2f\n"
		"sub %%rbx, %%r12\n cmp $5, %%r12\n jne 2f\n sub %%rbx, %%r13\n cmp $6, %%r13\n jne 2f\n"
		"sub %%rbx, %%r14\n cmp $7, %%r14\n jne 2f\n sub %%rbx, %%r15\n cmp $8, %%r15\n jne 2f\n"
		"sub %%rbx, %%rdx\n cmp $9, %%rdx\n jne 2f\n sub %%rbx, %%rsi\n cmp $10, %%rsi\n jne 2f\n"
		"sub %%rbx, %%rdi\n cmp $11, %%rdi\n jne 2f\n sub %%rbx, %%rbp\n cmp $12, %%rbp\n jne 2f\n"
		"movabs $0x1111111111111111, %%rcx\n cmp %%rcx, %%rbx\n je 3f\n"
		"2: inc %%eax\n 3: pop %%rbx\n pop %%rbp\n"
		: "=a"(bad)
		:
		: "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
	CHECK(bad == 0);
}

__attribute__((target("avx"))) static void vectors(void)
{
	__m256d y = _mm256_set_pd(4, 3, 2, 1), one = _mm256_set1_pd(1);
	for (int i = 0; i < 100000; i++) {
		y = _mm256_add_pd(y, one);
		__asm__ volatile("" : "+x"(y), "+x"(one));
	}
	double d[4];
	_mm256_storeu_pd(d, y);
	for (int i = 0; i < 4; i++)
		CHECK(d[i] == i + 1 + 100000);
}
#else
static void registers(void) {}
static void vectors(void)
{
	volatile double d = 1;
	for (int i = 0; i < 100000; i++)
		d += 1;
	CHECK(d == 100001);
}
#endif

static void *compute(void *arg)
{
	for (;;) {
		registers();
		same_mask();
		rounds[0]++;
	}
	return arg;
}

static void *vector(void *arg)
{
	for (;;) {
#ifdef __x86_64__
		if (!__builtin_cpu_supports("avx"))
			pause();
#endif
		vectors();
		same_mask();
		rounds[1]++;
	}
	return arg;
}

static int pipefd[2];

static void *blocked(void *arg)
{
	char c;
	for (;;) {
		CHECK(read(pipefd[0], &c, 1) == 1 && c == 'x');
		same_mask();
		rounds[2]++;
	}
	return arg;
}

static void *sleeper(void *arg)
{
	for (;;) {
		struct timespec t = {0, 3000000};
		double begin = now(CLOCK_MONOTONIC);
		CHECK(nanosleep(&t, 0) == 0);
		CHECK(now(CLOCK_MONOTONIC) - begin > 0.0029);
		same_mask();
		rounds[3]++;
	}
	return arg;
}

int main(int argc, char **argv)
{
	CHECK(argc == 2);
	struct sigaction trap = {.sa_handler = SIG_DFL}, usr = {.sa_handler = on_usr}, got;
	if (!strcmp(argv[1], "ignore"))
		trap.sa_handler = SIG_IGN;
	if (!strcmp(argv[1], "handler"))
		trap.sa_handler = on_trap;
	CHECK(sigaction(SIGTRAP, &trap, 0) == 0 && sigaction(SIGUSR1, &usr, 0) == 0);
	sigemptyset(&odd);
	sigaddset(&odd, SIGUSR2);
	sigaddset(&odd, SIGTERM);
	CHECK(sigprocmask(SIG_SETMASK, &odd, 0) == 0);
	CHECK(pipe(pipefd) == 0);
	pthread_t t;
	void *(*all[])(void *) = {compute, vector, blocked, sleeper};
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t, 0, all[i], 0) == 0);
	ready();
	for (char line[256];;) {
		command(line);
		long before[4];
		for (int i = 0; i < 4; i++)
			before[i] = rounds[i];
		CHECK(write(pipefd[1], "x", 1) == 1);
		for (int i = 0; i < 4; i++) {
#ifdef __x86_64__
			if (i == 1 && !__builtin_cpu_supports("avx"))
				continue;
#endif
			while (rounds[i] == before[i])
				usleep(200);
		}
		CHECK(sigaction(SIGTRAP, 0, &got) == 0 && got.sa_handler == trap.sa_handler);
		CHECK(sigaction(SIGUSR1, 0, &got) == 0 && got.sa_handler == on_usr);
		CHECK(traps == 0);
		same_mask();
		dprintf(1, "steady\n");
	}
}
