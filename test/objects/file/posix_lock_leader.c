/* the POSIX lock of a process whose first thread has ended */
#include "file.h"
#include <pthread.h>
#include <sys/syscall.h>

static int fd, end[2];

static void *rest(void *arg)
{
	char c;

	CHECK_EQ(read(end[0], &c, 1), 0);
	_exit(0);
	return arg;
}

static void child(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 2 };
	pthread_t t;

	close(end[1]);
	CHECK(fcntl(fd, F_SETLK, &l) == 0);
	CHECK_EQ(pthread_create(&t, NULL, rest, NULL), 0);
	syscall(SYS_exit, 0);
}

static struct flock held(void)
{
	struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET };

	CHECK(fcntl(fd, F_GETLK, &l) == 0);
	return l;
}

int main(void)
{
	int status;

	ht_init();
	fd = make("f", O_RDWR, "");
	CHECK(pipe2(end, O_CLOEXEC) == 0);
	pid_t pid = fork();
	if (pid == 0)
		child();
	while (held().l_type == F_UNLCK)
		usleep(1000);
	while (point()) {
		struct flock l = held();
		CHECK_EQ(l.l_type, F_WRLCK);
		CHECK_EQ(l.l_start, 5);
		CHECK_EQ(l.l_len, 2);
		CHECK_EQ(l.l_pid, pid);
	}
	close(end[1]);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(held().l_type, F_UNLCK);
	return done();
}
