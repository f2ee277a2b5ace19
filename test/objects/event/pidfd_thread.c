/* pidfd: PIDFD_THREAD, of a thread of the process and of one of another, shared with a child */
#include "../object.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

static pid_t tid;
static volatile int finish;

static void *thread(void *unused)
{
	tid = syscall(SYS_gettid);
	while (!finish)
		ht_nap(5);
	return unused;
}

static pid_t start(pthread_t *t)
{
	CHECK_EQ(pthread_create(t, NULL, thread, NULL), 0);
	while (!tid)
		ht_nap(1);
	return tid;
}

static int alive(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };

	CHECK(poll(&p, 1, 0) >= 0);
	return p.revents == 0;
}

int main(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 9 };
	pthread_t t;
	int p[2];
	pid_t theirs;
	char c;

	ht_init();
	CHECK_EQ(pipe(p), 0);
	start(&t);
	int fd = syscall(SYS_pidfd_open, tid, PIDFD_THREAD | O_NONBLOCK);
	if (fd < 0 && errno == EINVAL) /* before Linux 6.9 */
		fd = syscall(SYS_pidfd_open, getpid(), 0);
	CHECK(fd >= 0);
	int copy = dup(fd), ep = epoll_create1(0);
	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
	int go[2], back[2];
	CHECK_EQ(pipe(go), 0);
	CHECK_EQ(pipe(back), 0);
	pid_t child = fork();
	if (child == 0) { /* has the same descriptor, and a thread of its own */
		pthread_t own;

		tid = 0;
		start(&own);
		CHECK_EQ(write(p[1], &tid, sizeof tid), sizeof tid);
		while (read(go[0], &c, 1) == 1 && c != 'q') {
			CHECK(alive(fd));
			CHECK_EQ(write(back[1], "+", 1), 1);
		}
		_exit(alive(fd) ? 1 : 0);
	}
	CHECK_EQ(read(p[0], &theirs, sizeof theirs), sizeof theirs);
	int other = syscall(SYS_pidfd_open, theirs, PIDFD_THREAD);
	if (other < 0)
		other = syscall(SYS_pidfd_open, child, 0);
	while (point()) {
		CHECK(alive(fd) && alive(copy) && alive(other));
		CHECK_EQ(syscall(SYS_kcmp, getpid(), getpid(), 0, fd, copy), 0);
		CHECK_EQ(syscall(SYS_kcmp, getpid(), child, 0, fd, fd), 0);
		CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
		CHECK_EQ(fcntl(copy, F_GETFD), 0);
		CHECK_EQ(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), 0);
		CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
		CHECK_EQ(write(go[1], "?", 1), 1);
		CHECK_EQ(read(back[0], &c, 1), 1);
	}
	finish = 1; /* the thread alone ends */
	CHECK_EQ(pthread_join(t, NULL), 0);
	if (fcntl(fd, F_GETFL) & PIDFD_THREAD) {
		int status;

		CHECK_EQ(epoll_wait(ep, &ev, 1, 10000), 1);
		CHECK_EQ(ev.data.u64, 9);
		CHECK_EQ(write(go[1], "q", 1), 1);
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(status, 0);
		CHECK(!alive(other));
	} else {
		kill(child, SIGKILL);
	}
	return done();
}
