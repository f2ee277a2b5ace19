/* Registered notifications by signal, for an empty queue and one with messages, and SIGEV_NONE. */
#include "ipc.h"

static int take(mqd_t q, char *buf)
{
	struct timespec past = { 0, 0 };

	return mq_timedreceive(q, buf, 8, NULL, &past);
}

int main(void)
{
	struct mq_attr attr = { .mq_maxmsg = 4, .mq_msgsize = 8 };
	struct timespec none = { 0, 0 };
	mqd_t q[3];
	char buf[8];
	sigset_t set;
	siginfo_t si;
	long value = 0x123456789abc;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 3);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	for (int i = 0; i < 3; i++) {
		q[i] = mq_open(ipc_name(i), O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
		CHECK(q[i] >= 0);
	}
	struct sigevent one = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_ptr = (void *)value };
	struct sigevent two = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = -5 };
	struct sigevent nothing = { .sigev_notify = SIGEV_NONE };
	CHECK_EQ(mq_send(q[1], "a", 1, 3), 0);
	CHECK_EQ(mq_send(q[1], "bc", 2, 1), 0);
	CHECK_EQ(mq_notify(q[0], &one), 0);
	CHECK_EQ(mq_notify(q[1], &two), 0);
	CHECK_EQ(mq_notify(q[2], &nothing), 0);
	while (point()) {
		CHECK(sigtimedwait(&set, &si, &none) < 0 && errno == EAGAIN);
		for (int i = 0; i < 3; i++)
			CHECK(mq_notify(q[i], &one) < 0 && errno == EBUSY);
		CHECK_EQ(mq_send(q[0], "x", 1, 0), 0);
		CHECK_EQ(sigtimedwait(&set, &si, &none), SIGUSR1);
		CHECK_EQ(si.si_code, SI_MESGQ);
		CHECK_EQ(si.si_value.sival_ptr, value);
		CHECK_EQ(take(q[0], buf), 1);
		CHECK_EQ(take(q[1], buf), 1);
		CHECK_EQ(buf[0], 'a');
		CHECK_EQ(take(q[1], buf), 2);
		CHECK(sigtimedwait(&set, &si, &none) < 0);
		CHECK_EQ(mq_send(q[1], "bc", 2, 1), 0);
		CHECK_EQ(sigtimedwait(&set, &si, &none), SIGRTMIN + 3);
		CHECK_EQ(si.si_value.sival_int, -5);
		CHECK_EQ(mq_send(q[1], "a", 1, 3), 0);
		CHECK_EQ(mq_notify(q[0], &one), 0);
		CHECK_EQ(mq_notify(q[1], &two), 0);
	}
	for (int i = 0; i < 3; i++)
		CHECK_EQ(mq_unlink(ipc_name(i)), 0);
	return done();
}
