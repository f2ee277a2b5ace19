/* A process that may have no signals queued, and has two, getrlimit(2), RLIMIT_SIGPENDING: it gets none that nobody sent. */
#include "../object.h"
#include <sys/resource.h>

static const int signals[] = { SIGWINCH, SIGURG, SIGCHLD };
static volatile sig_atomic_t got;

static void count(int sig) { got = sig; }

static void queue(int sig, int value)
{
	siginfo_t info = { .si_code = SI_QUEUE };

	info.si_pid = getpid();
	info.si_value.sival_int = value;
	if (sig == SIGRTMIN)
		CHECK_EQ(syscall(SYS_rt_sigqueueinfo, getpid(), sig, &info), 0);
	else
		CHECK_EQ(syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), sig, &info), 0);
}

int main(void)
{
	const struct rlimit none = { 0, 0 };
	struct rlimit now;
	siginfo_t info;
	sigset_t queued, set;

	ht_init();
	for (int i = 0; i < 3; i++)
		CHECK(signal(signals[i], count) != SIG_ERR);
	sigemptyset(&queued);
	for (int sig = SIGRTMIN; sig < SIGRTMIN + 2; sig++)
		sigaddset(&queued, sig);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &queued, NULL), 0);
	queue(SIGRTMIN, 5);
	queue(SIGRTMIN + 1, 6);
	CHECK_EQ(setrlimit(RLIMIT_SIGPENDING, &none), 0);
	while (point()) {
		CHECK_EQ(got, 0);
		CHECK(getrlimit(RLIMIT_SIGPENDING, &now) == 0 && now.rlim_cur == 0 && now.rlim_max == 0);
		CHECK_EQ(sigpending(&set), 0);
		CHECK(sigismember(&set, SIGRTMIN) && sigismember(&set, SIGRTMIN + 1));
	}
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(sigtimedwait(&queued, &info, &(struct timespec){ 0 }), SIGRTMIN + 1 - i);
		CHECK_EQ(info.si_value.sival_int, 6 - i);
	}
	return done();
}
