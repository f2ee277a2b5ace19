// A process with something in every attribute. It prints what it sees of itself, a line
// "key value" each; "facts" asks for it again, "drain" for the signals that wait.
#include "t.h"
#include <sched.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/stat.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

static char stack_main[32768], stack_worker[16384] __attribute__((aligned(16)));
static int worker_tid, ask[2], answer[2];

static void handler(int sig, siginfo_t *si, void *context) { (void)sig, (void)si, (void)context; }

static void of_thread(const char *who)
{
	char name[32] = "";
	stack_t ss;
	void *tid_address, *head;
	size_t len;
	uint64_t mask = 0;
	int death = -1;
	struct sched_param sp;
	CHECK(prctl(PR_GET_NAME, name) == 0);
	CHECK(sigaltstack(0, &ss) == 0);
	CHECK(prctl(PR_GET_TID_ADDRESS, &tid_address) == 0);
	CHECK(syscall(SYS_get_robust_list, 0, &head, &len) == 0);
	CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0, &mask, 8) == 0);
	CHECK(prctl(PR_GET_PDEATHSIG, &death) == 0);
	cpu_set_t cpus;
	CHECK(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
	CHECK(sched_getparam(0, &sp) == 0);
	dprintf(1, "%s.tid %ld\n%s.name %s\n", who, syscall(SYS_gettid), who, name);
	dprintf(1, "%s.altstack %lx %lx %x\n", who, (long)ss.ss_sp, (long)ss.ss_size, ss.ss_flags);
	dprintf(1, "%s.tid_address %lx\n%s.robust %lx %zu\n", who, (long)tid_address, who, (long)head, len);
	dprintf(1, "%s.mask %lx\n%s.pdeathsig %d\n", who, mask, who, death);
	dprintf(1, "%s.cpus %d\n", who, CPU_COUNT(&cpus));
	dprintf(1, "%s.sched %d %d %d\n", who, sched_getscheduler(0), sp.sched_priority, getpriority(PRIO_PROCESS, 0));
	dprintf(1, "%s.ioprio %lx\n", who, syscall(SYS_ioprio_get, 1, 0));
}

static void *worker(void *arg)
{
	char b;
	stack_t ss = {.ss_sp = stack_worker, .ss_size = sizeof stack_worker, .ss_flags = SS_AUTODISARM};
	sigset_t all;
	struct sched_param none = {0};
	CHECK(prctl(PR_SET_NAME, "attr worker)") == 0);
	CHECK(sigaltstack(&ss, 0) == 0);
	CHECK(sched_setscheduler(0, SCHED_IDLE, &none) == 0);
	sigfillset(&all);
	CHECK(pthread_sigmask(SIG_SETMASK, &all, 0) == 0);
	worker_tid = syscall(SYS_gettid);
	for (;;) {
		CHECK(write(answer[1], "", 1) == 1);
		CHECK(read(ask[0], &b, 1) == 1);
		of_thread("worker");
	}
	return arg;
}

static void queue_to_worker(int value)
{
	siginfo_t si = {.si_code = SI_QUEUE};
	si.si_pid = getpid();
	si.si_uid = getuid();
	si.si_value.sival_int = value;
	si.si_signo = SIGRTMIN + 1;
	CHECK(syscall(SYS_rt_tgsigqueueinfo, getpid(), worker_tid, SIGRTMIN + 1, &si) == 0);
}

static void facts(int argc, char **argv)
{
	char b, path[256], auxv[4096];
	for (int sig = 1; sig <= 64; sig++) {
		struct kernel_sigaction a = {0};
		CHECK(syscall(SYS_rt_sigaction, sig, 0, &a, 8) == 0);
		if (a.handler)
			dprintf(1, "action.%d %lx %lx %lx %lx\n", sig, a.handler, a.flags, a.restorer, a.mask);
	}
	for (int i = 0; i < 16; i++) {
		struct rlimit l;
		CHECK(getrlimit(i, &l) == 0);
		dprintf(1, "limit.%d %lx %lx\n", i, l.rlim_cur, l.rlim_max);
	}
	mode_t m = umask(0);
	umask(m);
	CHECK(getcwd(path, sizeof path));
	dprintf(1, "umask %o\ncwd %s\n", m, path);
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
	CHECK(n > 0);
	path[n] = 0;
	dprintf(1, "exe %s\n", path);
	int fd = open("/proc/self/auxv", O_RDONLY);
	n = read(fd, auxv, sizeof auxv);
	close(fd);
	unsigned sum = 0;
	for (ssize_t i = 0; i < n; i++)
		sum = sum * 31 + (unsigned char)auxv[i];
	dprintf(1, "auxv %zd %x\n", n, sum);
	fd = open("/proc/self/cmdline", O_RDONLY);
	n = read(fd, auxv, sizeof auxv);
	close(fd);
	CHECK(argc > 1 && n > (ssize_t)strlen(argv[0]) && !strcmp(auxv, argv[0]));
	dprintf(1, "argv %lx\nbrk %lx\n", (long)argv[0], (long)sbrk(0));
	fd = open("/proc/self/oom_score_adj", O_RDONLY);
	n = read(fd, path, sizeof path - 1);
	close(fd);
	CHECK(n > 0);
	path[n - 1] = 0;
	int subreaper = -1;
	CHECK(prctl(PR_GET_CHILD_SUBREAPER, &subreaper) == 0);
	dprintf(1, "oom %s\nsubreaper %d\nno_new_privs %d\nthp_disable %d\ndumpable %d\n", path, subreaper,
		prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), prctl(PR_GET_DUMPABLE));
	of_thread("main");
	CHECK(write(ask[1], "", 1) == 1);
	CHECK(read(answer[0], &b, 1) == 1);
}

static void drain(void)
{
	sigset_t all;
	siginfo_t si;
	struct timespec none = {0};
	sigfillset(&all);
	while (sigtimedwait(&all, &si, &none) > 0)
		dprintf(1, "signal %d code %d value %d\n", si.si_signo, si.si_code, si.si_code == SI_QUEUE ? si.si_value.sival_int : 0);
}

// raise_limit sets the soft limit of a resource.
static void soft_limit(int resource, rlim_t cur)
{
	struct rlimit l;
	CHECK(getrlimit(resource, &l) == 0);
	l.rlim_cur = cur < l.rlim_max ? cur : l.rlim_max;
	CHECK(setrlimit(resource, &l) == 0);
}

static void attributes(void)
{
	struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
	stack_t ss = {.ss_sp = stack_main, .ss_size = sizeof stack_main};
	sigset_t block;
	struct sched_param none = {0};
	sigaddset(&a.sa_mask, SIGUSR2);
	CHECK(sigaction(SIGUSR1, &a, 0) == 0);
	a.sa_flags |= SA_ONSTACK | SA_NODEFER | SA_RESETHAND;
	CHECK(sigaction(SIGRTMAX, &a, 0) == 0);
	CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	CHECK(sigaltstack(&ss, 0) == 0);
	sigemptyset(&block);
	for (const int *s = (int[]){SIGTERM, SIGHUP, SIGRTMIN, SIGRTMIN + 1, 0}; *s; s++)
		sigaddset(&block, *s);
	CHECK(sigprocmask(SIG_SETMASK, &block, 0) == 0);
	CHECK(prctl(PR_SET_NAME, "attr (main") == 0);
	CHECK(prctl(PR_SET_PDEATHSIG, SIGWINCH) == 0);
	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	umask(027);
	CHECK(setpriority(PRIO_PROCESS, 0, 5) == 0);
	CHECK(sched_setscheduler(0, SCHED_BATCH, &none) == 0);
	CHECK(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6) == 0);
	cpu_set_t cpus, one;
	CHECK(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
		if (CPU_ISSET(i, &cpus))
			CPU_SET(i, &one);
	CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
	soft_limit(RLIMIT_NOFILE, 77);
	soft_limit(RLIMIT_CORE, 0);
	soft_limit(RLIMIT_STACK, 5 << 20);
	CHECK(sbrk(12345) != (void *)-1);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);
	CHECK(fd >= 0 && write(fd, "777", 3) == 3);
	close(fd);
}

int main(int argc, char **argv)
{
	pthread_t t;
	char line[256], b;
	CHECK(argc > 1 && chdir(argv[1]) == 0);
	CHECK(pipe(ask) == 0 && pipe(answer) == 0);
	attributes();
	CHECK(pthread_create(&t, 0, worker, 0) == 0);
	CHECK(read(answer[0], &b, 1) == 1);
	int many = argc > 2 ? atoi(argv[2]) : 2;
	for (int i = 0; i < many; i++) {
		CHECK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}) == 0);
		queue_to_worker(1000 + i);
	}
	CHECK(kill(getpid(), SIGTERM) == 0);
	CHECK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGHUP) == 0);
	facts(argc, argv);
	for (;;) {
		ready();
		command(line);
		if (!strcmp(line, "facts"))
			facts(argc, argv);
		if (!strcmp(line, "drain"))
			drain();
	}
}
