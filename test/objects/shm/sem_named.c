/* Named semaphores, sem_open(3): one made by each of two processes, and opened by its name by the other.
 * glibc makes the file under another name, maps it, links it to its own and removes the other.
 * cc: -pthread
 */
#include "ipc.h"
#include <semaphore.h>

static sem_t *make(int n)
{
	sem_t *s = sem_open(ipc_name(n), O_CREAT | O_EXCL, 0600, 0);

	CHECK(s != SEM_FAILED);
	return s;
}

static sem_t *named(int n)
{
	sem_t *s = sem_open(ipc_name(n), 0);

	CHECK(s != SEM_FAILED);
	return s;
}

static void take(sem_t *s)
{
	while (sem_wait(s) != 0)
		CHECK_EQ(errno, EINTR);
}

static int value_of(sem_t *s)
{
	int value;

	CHECK_EQ(sem_getvalue(s, &value), 0);
	return value;
}

/* answers one of ask with one of answer, which it makes itself. */
static void child(void)
{
	sem_t *ask = named(0), *answer = make(1), *end = named(2);

	CHECK_EQ(sem_post(end), 0);
	for (;;) {
		take(ask);
		if (value_of(end) == 2)
			_exit(0);
		CHECK_EQ(sem_post(answer), 0);
	}
}

int main(void)
{
	ht_init();
	sem_t *ask = make(0), *end = make(2), *count = make(3);
	pid_t pid = ipc_child();
	if (pid == 0)
		child();
	while (value_of(end) == 0)
		ht_nap(1);
	sem_t *answer = named(1);
	int n = 0;
	while (point()) {
		CHECK_EQ(sem_post(ask), 0);
		take(answer);
		CHECK_EQ(value_of(count), n);
		CHECK_EQ(sem_post(count), 0);
		n++;
		/* a mapping of its own: sem_open gives again the one that a process has */
		char path[256];
		snprintf(path, sizeof path, "/dev/shm/sem.%s", ipc_name(3) + 1);
		int fd = open(path, O_RDWR | O_CLOEXEC);
		CHECK(fd >= 0);
		sem_t *other = mmap(NULL, sizeof *other, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		CHECK(other != MAP_FAILED);
		CHECK_EQ(close(fd), 0);
		CHECK_EQ(value_of(other), n);
		CHECK_EQ(munmap(other, sizeof *other), 0);
	}
	CHECK_EQ(sem_post(end), 0);
	CHECK_EQ(sem_post(ask), 0);
	ipc_reap(pid);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(sem_unlink(ipc_name(i)), 0);
	return done();
}
