// Trees that are hard to stop, by the first argument.
#include "t.h"

static volatile long work;

static void *brief(void *arg)
{
	__atomic_fetch_add(&work, 1, __ATOMIC_RELAXED);
	return arg;
}

static void *spawner(void *arg)
{
	for (;;) {
		pthread_t t[4];
		for (int i = 0; i < 4; i++)
			CHECK(pthread_create(&t[i], 0, brief, 0) == 0);
		for (int i = 0; i < 4; i++)
			CHECK(pthread_join(t[i], 0) == 0);
	}
	return arg;
}

// echo answers "alive" for each line, with proof that the program works on.
static void echo(void)
{
	char line[256];
	for (;;) {
		command(line);
		long before = work;
		while (work == before)
			usleep(1000);
		CHECK(write(1, "alive\n", 6) == 6);
	}
}

static void threads(void)
{
	pthread_t t;
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&t, 0, spawner, 0) == 0);
	ready();
	echo();
}

static void *exits(void *arg)
{
	usleep((uintptr_t)arg % 700);
	syscall(SYS_exit_group, 0);
	return 0;
}

// forker makes children that end in every way: at once, with threads, and leaving an orphan.
// It ends with its parent, who alone reaps the orphans, and comes to rest in the end.
static void forker(unsigned seed)
{
	CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	for (int left = 20000; left > 0; left--) {
		int how = rand_r(&seed) % 3; // here, as what a child draws is lost with it
		pid_t c = fork();
		CHECK(c >= 0);
		if (c == 0) {
			pthread_t t;
			switch (how) {
			case 0:
				_exit(0);
			case 1:
				pthread_create(&t, 0, exits, (void *)(uintptr_t)rand_r(&seed));
				usleep(rand_r(&seed) % 700);
				_exit(0);
			case 2:
				if (fork() == 0)
					usleep(rand_r(&seed) % 2000);
				_exit(0);
			}
		}
		CHECK(waitpid(c, 0, 0) == c);
	}
	for (;;)
		pause();
}

static void *reaper(void *arg)
{
	for (;;) {
		if (waitpid(-1, 0, 0) > 0)
			work++;
	}
	return arg;
}

static void forks(void)
{
	pthread_t t;
	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	for (int i = 1; i <= 2; i++)
		if (fork() == 0)
			forker(i);
	CHECK(pthread_create(&t, 0, reaper, 0) == 0);
	ready();
	echo();
}

// hop lives on in ever new processes: each forks its successor and ends. It comes to rest
// in the end, so that zombies cannot take up all process ids of the machine.
static void hop(void)
{
	for (int left = 2000; left > 0; left--) {
		pid_t c = fork();
		if (c > 0)
			_exit(0);
		CHECK(c == 0);
		usleep(500 + left % 1500);
	}
	for (;;)
		pause();
}

// Where orphans go: to the tracer, to main, or to main where none stays a zombie.
enum adopter { TRACER, MAIN, NOBODY };

static void hops(enum adopter who)
{
	pthread_t t;
	if (who != TRACER)
		CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	if (who == NOBODY)
		CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
	for (int i = 0; i < 2; i++)
		if (fork() == 0)
			hop();
	if (who == MAIN)
		CHECK(pthread_create(&t, 0, reaper, 0) == 0);
	ready();
	for (char line[256];;) {
		command(line);
		CHECK(write(1, "alive\n", 6) == 6);
	}
}

// vforked has a child in vfork(2) that waits for a line before execve(2).
static void vforked(void)
{
	pid_t c = vfork();
	if (c == 0) {
		char b;
		CHECK(write(1, "ready\n", 6) == 6);
		while (read(0, &b, 1) == 1 && b != '\n')
			;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/bin/sleep", "sleep", "1000", (char *)0);
		_exit(1);
	}
	dprintf(1, "vfork is over\n");
	for (char line[256];;) {
		command(line);
		CHECK(write(1, "alive\n", 6) == 6);
	}
}

/* brothers has a child wait, as in vfork(2), for one that is its brother. */
static void brothers(void)
{
	if (fork() == 0) {
		if (syscall(SYS_clone, CLONE_VFORK | CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0) {
			char b;

			CHECK(write(1, "ready\n", 6) == 6);
			while (read(0, &b, 1) == 1 && b != '\n')
				;
		}
		_exit(0);
	}
	while (wait(NULL) > 0)
		;
	dprintf(1, "vfork is over\n");
	for (char line[256];;) {
		command(line);
		CHECK(write(1, "alive\n", 6) == 6);
	}
}

static void stopped(void)
{
	pid_t c = fork();
	if (c == 0) {
		raise(SIGSTOP);
		dprintf(1, "continued\n");
		for (;;)
			pause();
	}
	CHECK(waitpid(c, 0, WUNTRACED) == c);
	dprintf(1, "%d\n", c);
	ready();
	for (char line[256];;)
		command(line);
}

static void zombies(void)
{
	pid_t a = fork();
	if (a == 0)
		_exit(3);
	pid_t b = fork();
	if (b == 0) {
		raise(SIGKILL);
	}
	siginfo_t si;
	CHECK(waitid(P_PID, a, &si, WEXITED | WNOWAIT) == 0);
	CHECK(waitid(P_PID, b, &si, WEXITED | WNOWAIT) == 0);
	ready();
	char line[256];
	command(line);
	int sa, sb;
	CHECK(waitpid(a, &sa, 0) == a && waitpid(b, &sb, 0) == b);
	dprintf(1, "exited %d, signalled %d\n", WEXITSTATUS(sa), WTERMSIG(sb));
	command(line);
}

static void *survivor(void *arg)
{
	char path[64], buf[256];
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
	for (;;) {
		int f = open(path, O_RDONLY);
		ssize_t n = f < 0 ? 0 : read(f, buf, sizeof buf - 1);
		close(f);
		buf[n > 0 ? n : 0] = 0;
		if (strstr(buf, ") Z "))
			break;
		usleep(1000);
	}
	ready();
	for (char line[256];;) {
		command(line);
		CHECK(write(1, "alive\n", 6) == 6);
	}
	return arg;
}

static void leader(void)
{
	pthread_t t;
	CHECK(pthread_create(&t, 0, survivor, 0) == 0);
	pthread_exit(0);
}

static char *self, *how;

static void *execs(void *arg)
{
	execl(self, self, how, "again", (char *)0);
	CHECK(!"execl");
	return arg;
}

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

// exec lives on in ever new programs, executed by the leader or by another thread.
static void exec(int again, int by_thread)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};
	pthread_t t;
	char line[256];
	if (!again)
		ready();
	if (poll(&in, 1, 0) == 1) {
		command(line);
		CHECK(write(1, "alive\n", 6) == 6);
	}
	CHECK(pthread_create(&t, 0, idle, 0) == 0);
	if (!by_thread)
		execs(0);
	CHECK(pthread_create(&t, 0, execs, 0) == 0);
	idle(0);
}

static void nodump(void)
{
	CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
	ready();
	for (char line[256];;) {
		command(line);
		dprintf(1, "dumpable %d\n", prctl(PR_GET_DUMPABLE));
	}
}

static volatile long taken[2]; // by the leader, and by others

static void take(int sig) { __atomic_fetch_add(&taken[gettid() != getpid()], sig > 0, __ATOMIC_RELAXED); }

static void signalled(void)
{
	struct sigaction sa = { .sa_handler = take, .sa_flags = SA_RESTART | SA_NODEFER };
	pthread_t t;
	char line[256];

	CHECK(sigaction(SIGUSR1, &sa, 0) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t, 0, idle, 0) == 0);
	ready();
	for (;;) {
		command(line);
		dprintf(1, "leader %ld, others %ld\n", taken[0], taken[1]);
	}
}

static volatile long interrupted;

static void *waits(void *arg)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + (intptr_t)arg);
	for (;;)
		if (sigwaitinfo(&set, 0) < 0)
			__atomic_fetch_add(&interrupted, 1, __ATOMIC_RELAXED);
	return 0;
}

static void *parent(void *arg)
{
	for (;;) {
		pid_t c = fork();
		if (c == 0) {
			usleep(3000);
			_exit(0);
		}
		CHECK(waitpid(c, 0, 0) == c);
	}
	return arg;
}

// waiters has threads that wait for signals, and others whose children end all the time: their
// SIGCHLD is for nobody. It answers how often a wait was interrupted.
static void waiters(void)
{
	enum { threads = 16 };
	struct pollfd in = {.fd = 0, .events = POLLIN};
	sigset_t set;
	pthread_t t;
	char line[256];
	sigemptyset(&set);
	for (int i = 0; i < threads; i++)
		sigaddset(&set, SIGRTMIN + i);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, 0) == 0);
	for (intptr_t i = 0; i < threads; i++)
		CHECK(pthread_create(&t, 0, waits, (void *)i) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t, 0, parent, 0) == 0);
	for (ready();;) {
		if (poll(&in, 1, 7) == 1) {
			command(line);
			dprintf(1, "%ld\n", interrupted);
		}
		for (int i = 0; i < threads / 2; i++)
			CHECK(sigqueue(getpid(), SIGRTMIN + i, (union sigval){0}) == 0);
	}
}

int main(int argc, char **argv)
{
	CHECK(argc > 1);
	self = argv[0];
	how = argv[1];
	if (!strcmp(how, "threads"))
		threads();
	if (!strcmp(how, "forks"))
		forks();
	if (!strcmp(how, "hops"))
		hops(TRACER);
	if (!strcmp(how, "hops below a subreaper"))
		hops(MAIN);
	if (!strcmp(how, "hops without zombies"))
		hops(NOBODY);
	if (!strcmp(how, "vfork"))
		vforked();
	if (!strcmp(how, "vfork-brothers"))
		brothers();
	if (!strcmp(how, "stopped"))
		stopped();
	if (!strcmp(how, "zombies"))
		zombies();
	if (!strcmp(how, "leader"))
		leader();
	if (!strcmp(how, "exec-by-leader"))
		exec(argc > 2, 0);
	if (!strcmp(how, "exec-by-thread"))
		exec(argc > 2, 1);
	if (!strcmp(how, "signalled"))
		signalled();
	if (!strcmp(how, "nodump"))
		nodump();
	if (!strcmp(how, "waiters"))
		waiters();
	CHECK(!"unknown argument");
}
