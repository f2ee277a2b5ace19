/* Calls that wait with a signal mask of their own, signal(7): a signal that only that mask
 * blocks stays pending, and one that it lets through has its handler called.
 *
 * alone: the kernel delivers it between two runs of the call when a tracer dies
 */
#include "../object.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/wait.h>

/* What the processes have seen, and how the last call has ended. */
struct waiter {
	volatile int held, let, ends, result;
	pid_t pid;
	int pipe[2];
};

static struct waiter *self;

/* SIGUSR1 is blocked by the mask of the call alone, SIGUSR2 by that of the thread alone. */
static void handle(int sig)
{
	if (sig == SIGUSR1)
		self->held++;
	else
		self->let++;
}

static int in_ppoll(int fd, const sigset_t *mask)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return ppoll(&p, 1, NULL, mask);
}

static int in_ppoll_time(int fd, const sigset_t *mask)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return ppoll(&p, 1, &(struct timespec){ 1000, 0 }, mask);
}

static int in_pselect(int fd, const sigset_t *mask)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return pselect(fd + 1, &set, NULL, NULL, NULL, mask);
}

static int epoll_of(int fd)
{
	static int ep = -1;
	struct epoll_event e = { .events = EPOLLIN };

	if (ep < 0) {
		ep = epoll_create1(0);
		CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), 0);
	}
	return ep;
}

static int in_epoll(int fd, const sigset_t *mask)
{
	struct epoll_event e;

	return epoll_pwait(epoll_of(fd), &e, 1, 1000000, mask);
}

static int in_epoll2(int fd, const sigset_t *mask)
{
	struct epoll_event e;
	int n = syscall(SYS_epoll_pwait2, epoll_of(fd), &e, 1, NULL, mask, 8);

	return n < 0 && errno == ENOSYS ? in_epoll(fd, mask) : n; /* before Linux 5.11 */
}

static int in_sigsuspend(int fd, const sigset_t *mask)
{
	(void)fd;
	return sigsuspend(mask);
}

static int (*const calls[])(int, const sigset_t *) = { in_ppoll, in_ppoll_time, in_pselect, in_epoll, in_epoll2, in_sigsuspend };

enum { CALLS = sizeof calls / sizeof *calls, WAITERS = 2 * CALLS };

static struct waiter *waiters;

static void wait_in(int (*call)(int, const sigset_t *))
{
	struct sigaction a = { .sa_handler = handle };
	sigset_t own, during;
	char c;

	CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
	CHECK(sigaction(SIGUSR1, &a, NULL) == 0 && sigaction(SIGUSR2, &a, NULL) == 0);
	sigemptyset(&own);
	sigemptyset(&during);
	sigaddset(&own, SIGUSR2);
	sigaddset(&during, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_SETMASK, &own, NULL), 0);
	for (;;) {
		int n = call(self->pipe[0], &during);

		self->result = n < 0 ? -errno : n;
		if (n > 0)
			CHECK_EQ(read(self->pipe[0], &c, 1), 1);
		self->ends++;
	}
}

/* status reads a mask in /proc. */
static unsigned long status(pid_t pid, const char *key)
{
	char path[64], line[256];
	unsigned long mask = 0;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *f = fopen(path, "r");
	CHECK(f);
	while (fgets(line, sizeof line, f))
		if (strncmp(line, key, strlen(key)) == 0)
			mask = strtoul(line + strlen(key), NULL, 16);
	fclose(f);
	return mask;
}

#define HELD (1ul << (SIGUSR1 - 1))

/* arm has a waiter in its call with SIGUSR1 pending. */
static void arm(struct waiter *w)
{
	while (!(status(w->pid, "SigBlk:") & HELD))
		ht_nap(1);
	CHECK_EQ(kill(w->pid, SIGUSR1), 0);
	CHECK(status(w->pid, "ShdPnd:") & HELD);
}

/* look wakes a waiter that has waited all the time, by a byte or by SIGUSR2. */
static void look(struct waiter *w, int by_signal)
{
	int held = w->held, let = w->let, ends = w->ends;

	CHECK_EQ(held, ends); /* SIGUSR1 comes behind each call */
	while (!(status(w->pid, "SigBlk:") & HELD) && w->ends == ends)
		ht_nap(1);
	CHECK_EQ(w->held, held);
	CHECK_EQ(w->ends, ends);
	CHECK(status(w->pid, "ShdPnd:") & HELD);
	if (by_signal)
		CHECK_EQ(kill(w->pid, SIGUSR2), 0);
	else
		CHECK_EQ(write(w->pipe[1], "c", 1), 1);
	while (w->ends == ends)
		ht_nap(1);
	CHECK_EQ(w->ends, ends + 1);
	CHECK_EQ(w->result, by_signal ? -EINTR : 1);
	CHECK_EQ(w->let, let + by_signal);
	CHECK_EQ(w->held, held + 1);
	arm(w);
}

int main(void)
{
	ht_init();
	waiters = mmap(NULL, WAITERS * sizeof *waiters, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(waiters != MAP_FAILED);
	for (int i = 0; i < WAITERS; i++) {
		self = &waiters[i];
		CHECK_EQ(pipe(self->pipe), 0);
		pid_t pid = fork();
		CHECK(pid >= 0);
		if (pid == 0)
			wait_in(calls[i / 2]);
		self->pid = pid;
		arm(self);
	}
	while (point())
		for (int i = 0; i < WAITERS; i++) {
			CHECK_EQ(waiters[i].ends, waiters[i].held);
			look(&waiters[i], i % 2 || calls[i / 2] == in_sigsuspend);
		}
	for (int i = 0; i < WAITERS; i++)
		CHECK(kill(waiters[i].pid, SIGKILL) == 0 && waitpid(waiters[i].pid, NULL, 0) == waiters[i].pid);
	return done();
}
