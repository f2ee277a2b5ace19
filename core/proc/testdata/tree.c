// A tree with what a restart must make again: groups, sessions, a session whose leader has
// ended, an orphan, a zombie, a stopped child, and threads. It tells what it sees of itself
// when asked.
#include "t.h"

static struct {
	const char *name;
	pid_t pid;
} child[8];
static int children;
static volatile pid_t tids[2];

static void add(const char *name, pid_t pid)
{
	CHECK(pid > 0);
	child[children].name = name;
	child[children++].pid = pid;
}

static void idle(void)
{
	for (;;)
		pause();
}

static void *thread(void *arg)
{
	for (;;) {
		tids[(uintptr_t)arg] = syscall(SYS_gettid);
		usleep(1000);
	}
	return arg;
}

// field returns the state and the parent in /proc/PID/stat.
static char field(pid_t pid, int *ppid)
{
	char path[64], buf[512], state = '?', *end;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int f = open(path, O_RDONLY);
	ssize_t n = f < 0 ? 0 : read(f, buf, sizeof buf - 1);
	close(f);
	buf[n > 0 ? n : 0] = 0;
	if ((end = strrchr(buf, ')')))
		sscanf(end + 1, " %c %d", &state, ppid);
	return state;
}

static void tell(void)
{
	tids[0] = tids[1] = 0;
	while (!tids[0] || !tids[1])
		usleep(500);
	dprintf(1, "pid %d tid %d pgid %d sid %d threads %d %d", getpid(), gettid(), getpgrp(), getsid(0), tids[0], tids[1]);
	for (int i = 0; i < children; i++) {
		int ppid = 0;
		pid_t p = child[i].pid;
		char state = field(p, &ppid);
		if (state == 'R')
			state = 'S';
		dprintf(1, " | %s %d %c pgid %d sid %d of %d", child[i].name, p, state, getpgid(p), getsid(p), ppid);
	}
	dprintf(1, "\n");
}

// born forks a child that tells its own child's pid through a pipe.
static pid_t received(int fd)
{
	pid_t p = 0;
	CHECK(read(fd, &p, sizeof p) == sizeof p);
	return p;
}

int main(void)
{
	pthread_t t;
	int fds[2];
	pid_t c, lost;
	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && pipe(fds) == 0);

	if ((c = fork()) == 0) {
		setpgid(0, 0);
		idle();
	}
	setpgid(c, c);
	add("group", c);

	if ((c = fork()) == 0) {
		CHECK(setsid() == getpid());
		if ((c = fork()) == 0)
			idle();
		CHECK(write(fds[1], &c, sizeof c) == sizeof c);
		idle();
	}
	add("session", c);
	add("member", received(fds[0]));

	if ((c = fork()) == 0) { // an orphan, in a session whose leader has ended
		CHECK(setsid() == getpid());
		if ((c = fork()) == 0)
			idle();
		CHECK(write(fds[1], &c, sizeof c) == sizeof c);
		_exit(0);
	}
	lost = received(fds[0]);
	CHECK(waitpid(c, 0, 0) == c);
	add("orphan", lost);

	if ((c = fork()) == 0)
		_exit(7);
	siginfo_t si;
	CHECK(waitid(P_PID, c, &si, WEXITED | WNOWAIT) == 0);
	add("zombie", c);

	if ((c = fork()) == 0) {
		raise(SIGSTOP);
		dprintf(1, "continued\n");
		idle();
	}
	CHECK(waitpid(c, 0, WUNTRACED) == c);
	add("stopped", c);

	for (uintptr_t i = 0; i < 2; i++)
		CHECK(pthread_create(&t, 0, thread, (void *)i) == 0);
	ready();
	for (char line[256];;) {
		command(line);
		if (!strcmp(line, "tell"))
			tell();
		if (!strcmp(line, "clock"))
			dprintf(1, "%.6f %.6f\n", now(CLOCK_MONOTONIC), now(CLOCK_BOOTTIME));
		if (!strcmp(line, "zombie")) {
			int status, z = 0;
			while (strcmp(child[z].name, "zombie"))
				z++;
			CHECK(waitpid(child[z].pid, &status, 0) == child[z].pid);
			dprintf(1, "exited %d\n", WEXITSTATUS(status));
		}
		if (!strcmp(line, "continue"))
			CHECK(kill(child[children - 1].pid, SIGCONT) == 0);
	}
}
