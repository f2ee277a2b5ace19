/* Children that are stopped or were continued: by which signal, and whether their
 * parent was told, by wait(2) and by SIGCHLD, of which none comes anew.
 */
#include "../object.h"
#include "pair.h"
#include <pthread.h>
#include <sys/prctl.h>

static const struct stop {
	int sig;       /* 0: stopped and continued */
	int told;      /* its parent has waited for it */
	int threads;
} stops[] = {
	{ SIGSTOP, 1, 1 }, { SIGSTOP, 0, 1 }, { SIGTSTP, 1, 1 }, { SIGTSTP, 0, 3 }, { SIGTTIN, 0, 1 }, { SIGTTOU, 0, 2 },
	{ 0, 1, 1 }, { 0, 0, 1 }, { 0, 0, 3 },
};

enum { STOPS = sizeof stops / sizeof *stops };

static pid_t children[STOPS];
static volatile sig_atomic_t told;
static int tells; /* SIGCHLD comes for stops */

static void tell(int sig) { told += sig == SIGCHLD; }

static void *sleeper(void *arg)
{
	for (;;)
		sleep(1000);
	return arg;
}

/* child has a process group of its own, as a job of a shell does: SIGTSTP stops no orphan. */
static pid_t child(int threads)
{
	pthread_t t;
	int ready[2];
	char c;

	CHECK_EQ(pipe(ready), 0);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK_EQ(setpgid(0, 0), 0);
		CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
		while (--threads)
			CHECK_EQ(pthread_create(&t, NULL, sleeper, NULL), 0);
		CHECK_EQ(write(ready[1], "c", 1), 1);
		sleeper(NULL);
	}
	CHECK_EQ(read(ready[0], &c, 1), 1);
	CHECK(close(ready[0]) == 0 && close(ready[1]) == 0);
	return pid;
}

/* report returns what there is to wait for of a child: the code, and the signal. */
static int report(pid_t pid, int flags, int *sig)
{
	siginfo_t info = { 0 };

	CHECK_EQ(waitid(P_PID, pid, &info, WSTOPPED | WCONTINUED | flags), 0);
	*sig = info.si_status;
	return info.si_code;
}

/* send sends a signal and waits for what becomes of it, which it leaves where flags say so. */
static void send(pid_t pid, int signal, int flags, int code)
{
	int before = told, sig;

	CHECK_EQ(kill(pid, signal), 0);
	CHECK_EQ(report(pid, flags, &sig), code);
	CHECK_EQ(sig, signal);
	while (tells && told == before)
		ht_nap(1);
}

static void put(pid_t pid, const struct stop *s)
{
	int leave = s->told ? 0 : WNOWAIT;

	if (s->sig) {
		send(pid, s->sig, leave, CLD_STOPPED);
		return;
	}
	send(pid, SIGSTOP, 0, CLD_STOPPED);
	send(pid, SIGCONT, leave, CLD_CONTINUED);
}

static char state(pid_t pid)
{
	char path[64], c;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	FILE *f = fopen(path, "r");
	CHECK(f && fscanf(f, "%*d %*s %c", &c) == 1);
	fclose(f);
	return c;
}

static void look(pid_t pid, const struct stop *s)
{
	int sig, code = report(pid, WNOHANG | WNOWAIT, &sig), want = s->sig ? CLD_STOPPED : CLD_CONTINUED;

	CHECK_EQ(code, s->told ? 0 : want);
	CHECK_EQ(sig, s->told ? 0 : s->sig ? s->sig : SIGCONT);
	while (s->sig && state(pid) != 'T') /* it goes back to it when its tracer dies */
		ht_nap(1);
	CHECK_EQ(state(pid) == 'T', s->sig != 0);
}

static void end(pid_t pid, const struct stop *s)
{
	int status;

	if (s->sig)
		send(pid, SIGCONT, 0, CLD_CONTINUED);
	CHECK_EQ(kill(pid, SIGTERM), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, SIGTERM);
}

/* parent handles SIGCHLD, the second one not for stops. */
static void parent(int n)
{
	struct sigaction a = { .sa_handler = tell, .sa_flags = SA_RESTART | (n ? SA_NOCLDSTOP : 0) };

	CHECK_EQ(sigaction(SIGCHLD, &a, NULL), 0);
	tells = !n;
	for (int i = 0; i < STOPS; i++)
		put(children[i] = child(stops[i].threads), &stops[i]);
	told = 0;
	while (pair_told(n)) {
		for (int i = 0; i < STOPS; i++)
			look(children[i], &stops[i]);
		CHECK_EQ(told, 0);
	}
	for (int i = 0; i < STOPS; i++)
		end(children[i], &stops[i]);
}

static int pending(void)
{
	sigset_t set;

	CHECK_EQ(sigpending(&set), 0);
	return sigismember(&set, SIGCHLD);
}

/* take takes SIGCHLD, which is blocked. */
static void take(pid_t of)
{
	sigset_t set;
	siginfo_t info;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	CHECK_EQ(sigtimedwait(&set, &info, &(struct timespec){ 0 }), SIGCHLD);
	CHECK_EQ(info.si_pid, of);
	CHECK_EQ(info.si_code, CLD_STOPPED);
	CHECK_EQ(info.si_status, SIGTSTP);
	CHECK_EQ(sigtimedwait(&set, &info, &(struct timespec){ 0 }), -1);
}

int main(void)
{
	const struct stop own = { SIGTSTP, 1, 1 };
	sigset_t set;
	pid_t pid;

	ht_init();
	pair_start(parent);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	put(pid = child(1), &own);
	while (!pending())
		ht_nap(1);
	while (point()) {
		pair_check();
		look(pid, &own);
		CHECK(pending());
	}
	take(pid);
	end(pid, &own);
	pair_end();
	return done();
}
