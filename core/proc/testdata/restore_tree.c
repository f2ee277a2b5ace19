// A tree of sessions, groups, threads, zombies, stopped processes and orphans. Each process
// knows its ids, and compares them when "check" asks all.
#include "t.h"
#include <linux/futex.h>
#include <limits.h>
#include <sys/stat.h>

// board is memory that the whole tree shares.
static struct board {
	int round;        // a futex: the question
	int answers;      // a futex: how many have answered it
	int members;
	int elsewhere;    // the parent of a root is another
	char fail[256];
} *board;

static void futex_wait(int *at, int value)
{
	while (__atomic_load_n(at, __ATOMIC_SEQ_CST) == value)
		CHECK(syscall(SYS_futex, at, FUTEX_WAIT, value, 0, 0, 0) == 0 || errno == EAGAIN || errno == EINTR);
}

static void futex_add(int *at)
{
	__atomic_add_fetch(at, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, at, FUTEX_WAKE, INT_MAX, 0, 0, 0);
}

struct ids {
	pid_t pid, tid, ppid, pgid, sid;
};

static struct ids own(void)
{
	return (struct ids){getpid(), syscall(SYS_gettid), getppid(), getpgrp(), getsid(0)};
}

static void compare(const char *who, struct ids was, int root)
{
	struct ids is = own();
	if (root && board->elsewhere)
		is.ppid = was.ppid;
	if (memcmp(&was, &is, sizeof is))
		snprintf(board->fail, sizeof board->fail, "%s: pid %d tid %d ppid %d pgid %d sid %d, was %d %d %d %d %d", who, is.pid,
			is.tid, is.ppid, is.pgid, is.sid, was.pid, was.tid, was.ppid, was.pgid, was.sid);
}

// member answers every question that is asked once it has joined, for ever. It counts the
// rounds itself: the next question may stand on the board before it has looked again.
static void *member(void *arg)
{
	const char *who = arg;
	struct ids was = own();
	prctl(PR_SET_NAME, who);
	int round = __atomic_load_n(&board->round, __ATOMIC_SEQ_CST);
	for (futex_add(&board->members);; round++) {
		futex_wait(&board->round, round);
		compare(who, was, !strcmp(who, "main-thread"));
		futex_add(&board->answers);
	}
	return arg;
}

static void start_thread(const char *who)
{
	pthread_t t;
	CHECK(pthread_create(&t, 0, member, (void *)who) == 0);
}

static pid_t child(const char *who, void (*before)(void))
{
	pid_t c = fork();
	CHECK(c >= 0);
	if (c == 0) {
		if (before)
			before();
		member((void *)who);
	}
	return c;
}

static void group(void) { CHECK(setpgid(0, 0) == 0); }

static void two_threads(void)
{
	start_thread("thread-1");
	start_thread("thread-2");
}

static void session(void)
{
	child("before-setsid", 0);
	CHECK(setsid() > 0);
	child("in-session", 0);
	child("in-group", group);
	two_threads();
}

static void await_at_least(int *at, int want)
{
	for (int n; (n = __atomic_load_n(at, __ATOMIC_SEQ_CST)) < want;)
		futex_wait(at, n);
}

// adopter is a subreaper that has adopted a process whose session's leader is gone.
static void adopter(void)
{
	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	pid_t leader = fork();
	if (leader == 0) {
		CHECK(setsid() > 0);
		if (fork() == 0) {
			while (getppid() == getsid(0))
				usleep(1000);
			member("orphan");
		}
		_exit(0);
	}
	CHECK(waitpid(leader, 0, 0) == leader);
}

static void *last(void *arg)
{
	char path[64], buf[256];
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
	do {
		int f = open(path, O_RDONLY);
		ssize_t n = f < 0 ? 0 : read(f, buf, sizeof buf - 1);
		close(f);
		buf[n > 0 ? n : 0] = 0;
		usleep(1000);
	} while (!strstr(buf, ") Z "));
	return member(arg);
}

// leaderless lives on in a thread.
static void leaderless(void)
{
	pthread_t t;
	umask(031);
	CHECK(pthread_create(&t, 0, last, "last-thread") == 0);
	syscall(SYS_exit, 7);
}

static pid_t zombie(int code, int signal)
{
	siginfo_t si;
	pid_t c = fork();
	CHECK(c >= 0);
	if (c == 0) {
		prctl(PR_SET_NAME, "undead");
		if (signal)
			kill(getpid(), signal);
		_exit(code);
	}
	CHECK(waitid(P_PID, c, &si, WEXITED | WNOWAIT) == 0);
	return c;
}

static pid_t zombies[4], stopped_one;

static void stopped(void) { raise(SIGSTOP); }

static void ask_all(void)
{
	board->answers = 0;
	futex_add(&board->round);
	await_at_least(&board->answers, board->members);
	if (board->fail[0]) {
		dprintf(1, "FAIL %s\n", board->fail);
		_exit(1);
	}
}

static void check_zombies(void)
{
	const int want[4] = {0, 3 << 8, SIGKILL, SIGUSR1};
	for (int i = 0; i < 4; i++) {
		int status = -1;
		CHECK(waitpid(zombies[i], &status, 0) == zombies[i]);
		CHECK(status == want[i]);
	}
}

int main(void)
{
	char line[256];
	board = mmap(0, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(board != MAP_FAILED);
	long none[2] = {0, 0};
	CHECK(syscall(SYS_prlimit64, 0, 4 /* RLIMIT_CORE */, none, 0) == 0);
	child("child", 0);
	child("group", group);
	child("session", session);
	child("adopter", adopter);
	child("leaderless", leaderless);
	start_thread("main-thread");
	zombies[0] = zombie(0, 0);
	zombies[1] = zombie(3, 0);
	zombies[2] = zombie(0, SIGKILL);
	zombies[3] = zombie(0, SIGUSR1);
	stopped_one = child("stopped", stopped);
	CHECK(waitpid(stopped_one, 0, WUNTRACED) == stopped_one);
	const int members = 12;
	await_at_least(&board->members, members);
	struct ids was = own();
	for (;;) {
		ready();
		command(line);
		if (!strncmp(line, "check", 5)) { // "check ELSEWHERE": the parent of a root is another
			board->elsewhere = line[5] != 0;
			ask_all();
			compare("main", was, 1);
			CHECK(!board->fail[0]);
		}
		if (!strcmp(line, "continue")) {
			CHECK(kill(stopped_one, SIGCONT) == 0);
			await_at_least(&board->members, members + 1);
		}
		if (!strcmp(line, "reported")) // whether a stop waits to be reported
			dprintf(1, "%d\n", waitpid(stopped_one, 0, WUNTRACED | WNOHANG) != 0);
		if (!strcmp(line, "zombies"))
			check_zombies();
		if (!strcmp(line, "fork")) {
			pid_t c = fork();
			if (c == 0)
				_exit(0);
			CHECK(waitpid(c, 0, 0) == c);
			dprintf(1, "%d\n", c);
		}
		if (!strcmp(line, "clock"))
			dprintf(1, "%.9f %.9f\n", now(CLOCK_MONOTONIC), now(CLOCK_BOOTTIME));
	}
}
