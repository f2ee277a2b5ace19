/* epoll: numbers of closed registrations that a file with a POSIX lock and a queue with a notification have now */
#include "../shm/ipc.h"
#include <sys/epoll.h>
#include <sys/wait.h>

static sigset_t set;

/* closed registers the read end of a pipe under a number that it has no more. */
static int closed(int ep, int p[2], uint64_t data)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = data };

	CHECK_EQ(pipe(p), 0);
	int kept = dup(p[0]);
	CHECK(kept >= 0);
	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev), 0);
	close(p[0]);
	return kept;
}

static void wakes(int ep, int w, int r, uint64_t data)
{
	struct epoll_event ev;
	char c;

	CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
	CHECK_EQ(write(w, "x", 1), 1);
	CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 1);
	CHECK_EQ(ev.data.u64, data);
	CHECK_EQ(read(r, &c, 1), 1);
}

/* locked asks as another process. */
static void locked(int fd)
{
	pid_t child = fork();
	int status;

	CHECK(child >= 0);
	if (child == 0) {
		struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

		CHECK_EQ(fcntl(fd, F_GETLK, &l), 0);
		CHECK_EQ(l.l_type, F_WRLCK);
		CHECK_EQ(l.l_start, 10);
		CHECK_EQ(l.l_len, 5);
		CHECK_EQ(l.l_pid, getppid());
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

static void notified(mqd_t q)
{
	struct sigevent by = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct timespec none = { 0, 0 };
	siginfo_t si;
	char buf[8];

	CHECK(mq_notify(q, &by) < 0 && errno == EBUSY);
	CHECK_EQ(mq_send(q, "x", 1, 0), 0);
	CHECK_EQ(sigtimedwait(&set, &si, &none), SIGUSR1);
	CHECK_EQ(mq_timedreceive(q, buf, sizeof buf, NULL, &none), 1);
	CHECK_EQ(mq_notify(q, &by), 0);
}

int main(void)
{
	struct mq_attr attr = { .mq_maxmsg = 4, .mq_msgsize = 8 };
	struct sigevent by = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5 };
	int a[2], b[2];

	ht_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	int first = closed(ep, a, 1);
	int db = open(ht_path("db"), O_RDWR | O_CREAT, 0600);
	CHECK_EQ(db, a[0]);
	int second = closed(ep, b, 2);
	mqd_t q = mq_open(ipc_name(0), O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
	CHECK_EQ(q, b[0]);
	CHECK_EQ(fcntl(db, F_SETLK, &l), 0);
	CHECK_EQ(mq_notify(q, &by), 0);
	while (point()) {
		locked(db);
		notified(q);
		wakes(ep, a[1], first, 1);
		wakes(ep, b[1], second, 2);
	}
	CHECK_EQ(mq_unlink(ipc_name(0)), 0);
	return done();
}
