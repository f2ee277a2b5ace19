/* Shared anonymous memory partly unmapped, moved, doubled, protected; parent and child see other parts. */
#include "ipc.h"

enum { PAGE = 4096, PAGES = 16 };

int main(void)
{
	ht_init();
	char *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	for (int i = 0; i < PAGES; i++)
		p[i * PAGE] = 'a' + i;
	volatile int *word = (volatile int *)(p + 8 * PAGE + 64);
	pid_t pid = ipc_child();
	if (pid == 0) {
		CHECK_EQ(munmap(p, 4 * PAGE), 0);
		char *q = mremap(p + 12 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p);
		CHECK(q == p);
		for (int n = 1;; n++) {
			while (word[0] >= 0 && word[0] < n)
				ht_nap(1);
			if (word[0] < 0)
				_exit(0);
			CHECK_EQ(q[0], 'm');
			CHECK_EQ(q[PAGE], 'n');
			q[1] = n;
			ipc_tell(&word[1], n);
		}
	}
	char *twice = mremap(p + 12 * PAGE, 0, PAGE, MREMAP_MAYMOVE); /* the same page again */
	CHECK(twice != MAP_FAILED);
	CHECK_EQ(munmap(p + 4 * PAGE, 2 * PAGE), 0);
	CHECK_EQ(mprotect(p + 9 * PAGE, PAGE, PROT_NONE), 0);
	CHECK_EQ(mprotect(p + 10 * PAGE, PAGE, PROT_READ), 0);
	int n = 0;
	while (point()) {
		unsigned char v;

		ipc_tell(&word[0], ++n);
		ipc_await(&word[1], n);
		CHECK_EQ(p[12 * PAGE + 1], n);
		CHECK_EQ(twice[0], 'm');
		CHECK_EQ(twice[1], n);
		for (int i = 0; i < PAGES; i++) {
			if (i == 4 || i == 5)
				CHECK(mincore(p + i * PAGE, PAGE, &v) < 0 && errno == ENOMEM);
			else if (i != 9)
				CHECK_EQ(p[i * PAGE], 'a' + i);
		}
		int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		CHECK(read(fd, p + 9 * PAGE + 8, 1) < 0 && errno == EFAULT);
		CHECK(read(fd, p + 10 * PAGE + 8, 1) < 0 && errno == EFAULT);
		CHECK_EQ(close(fd), 0);
	}
	CHECK_EQ(mprotect(p + 9 * PAGE, PAGE, PROT_READ), 0);
	CHECK_EQ(p[9 * PAGE], 'j');
	ipc_tell(&word[0], -1);
	ipc_reap(pid);
	return done();
}
