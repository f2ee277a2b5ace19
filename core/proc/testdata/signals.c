// A program whose signals are in a state that an injection must not change. It blocks and
// ignores as its arguments say, and reports its pending signals and handlers when asked.
#include "t.h"

static volatile sig_atomic_t handled[65];

static void handler(int sig, siginfo_t *si, void *context)
{
	handled[sig] = si->si_value.sival_int ? si->si_value.sival_int : 1;
}

int main(int argc, char **argv)
{
	sigset_t all, pending, none;
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	sigfillset(&all);
	sigemptyset(&none);
	CHECK(argc == 2);
	CHECK(sigaction(SIGTRAP, &sa, 0) == 0 && sigaction(SIGURG, &sa, 0) == 0 && sigaction(SIGWINCH, &sa, 0) == 0);
	CHECK(sigaction(SIGRTMIN, &sa, 0) == 0);
	if (strstr(argv[1], "ignored")) {
		for (int sig = 1; sig < 65; sig++)
			signal(sig, SIG_IGN);
	}
	if (strstr(argv[1], "blocked") || strstr(argv[1], "pending"))
		CHECK(sigprocmask(SIG_SETMASK, &all, 0) == 0);
	if (strstr(argv[1], "pending")) {
		for (int i = 1; i <= 3; i++)
			CHECK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}) == 0);
		CHECK(sigqueue(getpid(), SIGTRAP, (union sigval){.sival_int = 77}) == 0);
		CHECK(pthread_kill(pthread_self(), SIGURG) == 0);
		CHECK(pthread_kill(pthread_self(), SIGWINCH) == 0);
	}
	ready();
	for (char line[256];;) {
		command(line);
		if (!strcmp(line, "pending")) {
			CHECK(sigpending(&pending) == 0);
			dprintf(1, "trap %d urg %d winch %d rt %d\n", sigismember(&pending, SIGTRAP), sigismember(&pending, SIGURG),
				sigismember(&pending, SIGWINCH), sigismember(&pending, SIGRTMIN));
		} else if (!strcmp(line, "handled")) {
			CHECK(sigprocmask(SIG_SETMASK, &none, 0) == 0);
			dprintf(1, "trap %d urg %d winch %d rt %d\n", handled[SIGTRAP], handled[SIGURG], handled[SIGWINCH], handled[SIGRTMIN]);
		} else {
			struct sigaction got;
			CHECK(sigaction(SIGTRAP, 0, &got) == 0);
			dprintf(1, "%s\n", got.sa_handler == SIG_IGN ? "ignored" : got.sa_sigaction == handler ? "handler" : "changed");
		}
	}
}
