// A program in a known state, all of which it tells by lines "name value" before "ready".
// Its argument is a folder, which becomes the working directory.
#include "t.h"
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/stat.h>

#define PAGE 4096

static char stack_of_main[32768], stack_of_second[32768];

static void on_usr1(int sig, siginfo_t *si, void *context) {}

static void tell_thread(const char *name, const char *stack, size_t size)
{
	void *head, *addr;
	size_t len;
	stack_t ss = {.ss_sp = (void *)stack, .ss_size = size};
	CHECK(sigaltstack(&ss, 0) == 0);
	CHECK(syscall(SYS_get_robust_list, 0, &head, &len) == 0);
	CHECK(prctl(40 /* PR_GET_TID_ADDRESS */, &addr) == 0);
	dprintf(1, "%s_tid %d\n%s_stack %p\n%s_robust %p\n%s_tidaddr %p\n", name, gettid(), name, stack, name, head, name, addr);
	if (__rseq_size)
		dprintf(1, "%s_rseq %p\n", name, (char *)__builtin_thread_pointer() + __rseq_offset);
}

static volatile int told;

static void *second(void *arg)
{
	sigset_t s;
	sigemptyset(&s);
	sigaddset(&s, SIGHUP);
	sigaddset(&s, SIGRTMIN);
	CHECK(pthread_sigmask(SIG_SETMASK, &s, 0) == 0);
	CHECK(prctl(PR_SET_NAME, "second name") == 0);
	CHECK(prctl(PR_SET_PDEATHSIG, SIGWINCH) == 0);
	tell_thread("second", stack_of_second, sizeof stack_of_second);
	CHECK(pthread_kill(pthread_self(), SIGHUP) == 0);
	told = 1;
	for (;;)
		pause();
	return arg;
}

static char *map(const char *name, size_t pages, int prot, int flags, int fd)
{
	// A gap on either side keeps the kernel from merging it with another.
	char *room = mmap(0, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(room != MAP_FAILED);
	char *p = mmap(room + PAGE, pages * PAGE, prot, flags | MAP_FIXED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK(munmap(room, PAGE) == 0 && munmap(p + pages * PAGE, PAGE) == 0);
	dprintf(1, "%s %p\n", name, p);
	return p;
}

static void fill(char *at, char with) { memset(at, with, PAGE); }

static void maps(void)
{
	const int rw = PROT_READ | PROT_WRITE, anon = MAP_PRIVATE | MAP_ANONYMOUS;
	char *p = map("private", 16, rw, anon, -1);
	fill(p, 'a');
	fill(p + 5 * PAGE, 'b');
	fill(p + 7 * PAGE, 0);
	volatile char c = p[9 * PAGE]; // the kernel's zero page
	p = map("shared", 8, rw, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill(p + 2 * PAGE, 's');

	int f = open("file", O_CREAT | O_RDWR, 0600);
	CHECK(f >= 0);
	for (int i = 0; i < 6; i++) {
		char page[PAGE];
		memset(page, 'f', PAGE);
		CHECK(write(f, page, PAGE) == PAGE);
	}
	p = map("file_private", 6, rw, MAP_PRIVATE, f);
	fill(p + PAGE, 'p');
	fill(p + 3 * PAGE, 0);
	c = p[4 * PAGE];
	p = map("file_shared", 6, rw, MAP_SHARED, f);
	fill(p + 2 * PAGE, 'S');
	p = map("file_readonly", 6, PROT_READ, MAP_SHARED, open("file", O_RDONLY));
	c = *p;

	p = map("none", 4, rw, anon, -1);
	fill(p + PAGE, 'n');
	CHECK(mprotect(p, 4 * PAGE, PROT_NONE) == 0);
	p = map("growsdown", 2, rw, anon | MAP_GROWSDOWN, -1);
	fill(p + PAGE, 'g');
	p = map("hole", 3, rw, anon, -1);
	fill(p, '1');
	fill(p + 2 * PAGE, '3');
	CHECK(munmap(p + PAGE, PAGE) == 0);
	p = map("noreserve", 2, rw, anon | MAP_NORESERVE, -1);
	p = map("locked", 2, rw, anon, -1);
	CHECK(mlock(p, 2 * PAGE) == 0);
	p = map("dontdump", 2, rw, anon, -1);
	CHECK(madvise(p, 2 * PAGE, MADV_DONTDUMP) == 0);
	p = map("dontfork", 2, rw, anon, -1);
	CHECK(madvise(p, 2 * PAGE, MADV_DONTFORK) == 0);
	p = map("wipeonfork", 2, rw, anon, -1);
	CHECK(madvise(p, 2 * PAGE, MADV_WIPEONFORK) == 0);
	(void)c;
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	struct rlimit files = {77, 99};
	sigset_t s;
	pthread_t t;
	CHECK(argc == 2 && chdir(argv[1]) == 0);
	sigaddset(&sa.sa_mask, SIGINT);
	CHECK(sigaction(SIGUSR1, &sa, 0) == 0);
	CHECK(signal(SIGUSR2, SIG_IGN) != SIG_ERR);
	sigemptyset(&s);
	sigaddset(&s, SIGTERM);
	sigaddset(&s, SIGRTMIN);
	CHECK(sigprocmask(SIG_SETMASK, &s, 0) == 0);
	umask(027);
	CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
	CHECK(prctl(PR_SET_NAME, "first) (name") == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	tell_thread("first", stack_of_main, sizeof stack_of_main);
	dprintf(1, "handler %p\nargv0 %p\nrtmin %d\n", (void *)on_usr1, (void *)argv[0], SIGRTMIN);
	maps();
	dprintf(1, "brk %p\n", sbrk(0));
	CHECK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 4711}) == 0);
	CHECK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 4712}) == 0);
	CHECK(pthread_kill(pthread_self(), SIGTERM) == 0);
	CHECK(pthread_create(&t, 0, second, 0) == 0);
	while (!told)
		usleep(100);
	ready();
	for (char line[256];;)
		command(line);
}
