/* F_SETOWN, F_SETSIG and O_ASYNC: to a process, a group, a thread */
#include "file.h"
#include <poll.h>
#include <pthread.h>

static pid_t tid;
static int stop[2];

static void *waits(void *arg)
{
	char c;

	tid = gettid();
	CHECK_EQ(write(((int *)arg)[1], "x", 1), 1);
	CHECK_EQ(read(stop[0], &c, 1), 1);
	return NULL;
}

int main(void)
{
	int p[3][2], ready[2];
	char c;
	sigset_t set;
	siginfo_t info;
	pthread_t t;

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(pipe(ready) == 0 && pipe(stop) == 0 && pthread_create(&t, NULL, waits, ready) == 0);
	CHECK_EQ(read(ready[0], &c, 1), 1);
	struct f_owner_ex owners[3] = { { F_OWNER_PID, getpid() }, { F_OWNER_PGRP, getpgrp() }, { F_OWNER_TID, tid } }, o;
	for (int i = 0; i < 3; i++) {
		CHECK(pipe(p[i]) == 0);
		CHECK(fcntl(p[i][0], F_SETSIG, SIGRTMIN + 1) == 0);
		CHECK(fcntl(p[i][0], F_SETOWN_EX, &owners[i]) == 0);
		CHECK(fcntl(p[i][0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
	}
	while (point())
		for (int i = 0; i < 3; i++) {
			CHECK(fcntl(p[i][0], F_GETOWN_EX, &o) == 0);
			CHECK_EQ(o.type, owners[i].type);
			CHECK_EQ(o.pid, owners[i].pid);
			CHECK_EQ(fcntl(p[i][0], F_GETSIG), SIGRTMIN + 1);
			CHECK_EQ(fcntl(p[i][0], F_GETFL) & (O_ASYNC | O_NONBLOCK), O_ASYNC | O_NONBLOCK);
			if (i == 2)
				continue;
			struct timespec limit = { 10, 0 };
			CHECK_EQ(write(p[i][1], "x", 1), 1);
			CHECK_EQ(sigtimedwait(&set, &info, &limit), SIGRTMIN + 1);
			CHECK_EQ(info.si_fd, p[i][0]);
			CHECK_EQ(info.si_code, POLL_IN);
			CHECK_EQ(read(p[i][0], &c, 1), 1);
		}
	CHECK_EQ(write(stop[1], "x", 1), 1);
	CHECK(pthread_join(t, NULL) == 0);
	return done();
}
