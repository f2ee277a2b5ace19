/* pidfd: of children that have ended and were waited for, and of a thread that has ended */
#include "../object.h"
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#define GET_INFO _IOC(_IOC_READ | _IOC_WRITE, 0xff, 11, 64) /* PIDFD_GET_INFO */
#define INFO_EXIT 8

struct info { uint64_t mask, cgroup; uint32_t ids[11]; int32_t exit_code; };

static int told(int fd, struct info *info)
{
	*info = (struct info){ .mask = INFO_EXIT };
	return ioctl(fd, GET_INFO, info) == 0 ? 0 : errno;
}

static int ended(int flags, int end, int *again)
{
	int hold[2];

	CHECK_EQ(pipe(hold), 0);
	pid_t child = fork();
	if (child == 0) {
		char c;

		close(hold[1]);
		CHECK_EQ(read(hold[0], &c, 1), 0);
		if (end < 0)
			raise(-end);
		_exit(end);
	}
	close(hold[0]);
	int fd = syscall(SYS_pidfd_open, child, flags);
	CHECK(fd >= 0);
	if (again)
		CHECK((*again = syscall(SYS_pidfd_open, child, 0)) >= 0);
	close(hold[1]);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	return fd;
}

static void *open_own(void *fd)
{
	*(int *)fd = syscall(SYS_pidfd_open, syscall(SYS_gettid), O_EXCL); /* PIDFD_THREAD */
	return NULL;
}

static void shows_nobody(int fd)
{
	char path[64], text[512];
	int in;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	CHECK((in = open(path, O_RDONLY)) >= 0);
	ssize_t n = read(in, text, sizeof text - 1);
	CHECK(n > 0);
	text[n] = 0;
	CHECK(strstr(text, "Pid:\t-1\n"));
	close(in);
}

int main(void)
{
	int fds[5], n = 0, again, failed[5];
	struct info before[5], now;
	struct stat one, two;
	pthread_t thread;

	ht_init();
	fds[n++] = ended(O_NONBLOCK, 7, &again);
	fds[n++] = ended(0, -SIGTERM, NULL);
	fds[n++] = again;
	CHECK((fds[n++] = dup(fds[1])) >= 0);
	CHECK_EQ(pthread_create(&thread, NULL, open_own, &fds[n]), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	if (fds[n] >= 0) {
		n++;
		while (syscall(SYS_pidfd_send_signal, fds[n - 1], 0, NULL, 0) == 0)
			ht_nap(1); /* pthread_join does not wait for the very end */
	}
	CHECK_EQ(fstat(fds[0], &one), 0);
	CHECK_EQ(fstat(fds[1], &two), 0);
	int differ = one.st_ino != two.st_ino;
	for (int i = 0; i < n; i++)
		failed[i] = told(fds[i], &before[i]);
	while (point()) {
		for (int i = 0; i < n; i++) {
			struct pollfd p = { fds[i], POLLIN, 0 };
			siginfo_t si;

			CHECK_EQ(poll(&p, 1, 0), 1);
			CHECK(p.revents & POLLIN);
			CHECK_EQ(waitid(P_PIDFD, fds[i], &si, WEXITED), -1);
			CHECK_EQ(errno, ECHILD);
			CHECK_EQ(syscall(SYS_pidfd_send_signal, fds[i], 0, NULL, 0), -1);
			CHECK_EQ(errno, ESRCH);
			CHECK_EQ(syscall(SYS_pidfd_getfd, fds[i], 0, 0), -1);
			CHECK_EQ(errno, ESRCH);
			CHECK_EQ(fcntl(fds[i], F_GETFL) & O_NONBLOCK, i == 0 ? O_NONBLOCK : 0);
			CHECK_EQ(fcntl(fds[i], F_GETFL) & O_EXCL, i == 4 ? O_EXCL : 0);
			shows_nobody(fds[i]);
			CHECK_EQ(told(fds[i], &now), failed[i]);
			CHECK_EQ(now.mask & INFO_EXIT, before[i].mask & INFO_EXIT);
			if (!failed[i] && now.mask & INFO_EXIT)
				CHECK_EQ(now.exit_code, before[i].exit_code);
		}
		CHECK_EQ(fstat(fds[0], &one), 0);
		CHECK_EQ(fstat(fds[2], &two), 0);
		CHECK_EQ(one.st_ino, two.st_ino);
		CHECK_EQ(fstat(fds[1], &two), 0);
		CHECK_EQ(one.st_ino != two.st_ino, differ);
		CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
		CHECK_EQ(errno, ECHILD);
	}
	return done();
}
