/* signalfd: signals that are pending, of the process and of the thread */
#include "../object.h"
#include <pthread.h>
#include <sys/signalfd.h>

static int fd;

static void raise_all(void)
{
	CHECK_EQ(kill(getpid(), SIGUSR1), 0);
	CHECK_EQ(kill(getpid(), SIGUSR1), 0); /* the same one */
	for (int i = 1; i <= 3; i++)
		CHECK_EQ(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){ .sival_int = i }), 0);
	CHECK_EQ(pthread_kill(pthread_self(), SIGUSR2), 0);
}

static void expect(int signo, int code, int value)
{
	struct signalfd_siginfo info;

	CHECK_EQ(read(fd, &info, sizeof info), sizeof info);
	CHECK_EQ(info.ssi_signo, signo);
	CHECK_EQ(info.ssi_code, code);
	CHECK_EQ(info.ssi_pid, getpid());
	CHECK_EQ(info.ssi_uid, getuid());
	CHECK_EQ(info.ssi_int, value);
}

int main(void)
{
	struct signalfd_siginfo info;
	sigset_t set;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK);
	raise_all();
	while (point()) {
		expect(SIGUSR2, SI_TKILL, 0); /* the thread's own come first */
		expect(SIGUSR1, SI_USER, 0);
		for (int i = 1; i <= 3; i++)
			expect(SIGRTMIN + 3, SI_QUEUE, i);
		CHECK_EQ(read(fd, &info, sizeof info), -1);
		CHECK_EQ(errno, EAGAIN);
		raise_all();
	}
	return done();
}
