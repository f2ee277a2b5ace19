/* A file of shm_open, open and mapped by two processes, and one that was closed after mmap. */
#include "ipc.h"

int main(void)
{
	char text[8];

	ht_init();
	int fd = shm_open(ipc_name(0), O_CREAT | O_EXCL | O_RDWR, 0600), closed = shm_open(ipc_name(1), O_CREAT | O_EXCL | O_RDWR, 0600);
	CHECK(fd >= 0 && closed >= 0);
	CHECK_EQ(ftruncate(fd, 300000), 0);
	CHECK_EQ(ftruncate(closed, 100000), 0);
	volatile int *p = mmap(NULL, 300000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	volatile int *q = mmap(NULL, 100000, PROT_READ | PROT_WRITE, MAP_SHARED, closed, 0);
	CHECK(p != MAP_FAILED && q != MAP_FAILED);
	CHECK_EQ(close(closed), 0);
	CHECK_EQ(pwrite(fd, "written", 8, 200000), 8);
	pid_t pid = ipc_child();
	if (pid == 0) {
		for (int n = 1;; n++) {
			while (p[0] >= 0 && p[0] < n)
				ht_nap(1);
			if (p[0] < 0)
				_exit(0);
			ipc_tell(&q[20000], n);
		}
	}
	int n = 0;
	while (point()) {
		ipc_tell(&p[0], ++n);
		ipc_await(&q[20000], n);
		CHECK_EQ(pread(fd, text, 8, 200000), 8);
		CHECK(!strcmp(text, "written"));
		CHECK(!strcmp((char *)p + 200000, "written"));
		int again = shm_open(ipc_name(1), O_RDONLY, 0), value;
		CHECK(again >= 0);
		CHECK_EQ(pread(again, &value, sizeof value, 20000 * sizeof(int)), sizeof value);
		CHECK_EQ(value, n);
		CHECK_EQ(close(again), 0);
	}
	ipc_tell(&p[0], -1);
	ipc_reap(pid);
	CHECK_EQ(shm_unlink(ipc_name(0)), 0);
	CHECK_EQ(shm_unlink(ipc_name(1)), 0);
	return done();
}
