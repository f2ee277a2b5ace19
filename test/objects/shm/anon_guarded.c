/* Shared memory behind guard regions, MADV_GUARD_INSTALL: of one process, while another uses it, and of all. */
#include "ipc.h"
#include "../engine/smaps.h"

enum { PAGE = 4096, PAGES = 16, GUARD_INSTALL = 102, GUARD_REMOVE = 103 };

int main(void)
{
	ht_init();
	char *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	for (int i = 0; i < PAGES; i++)
		p[i * PAGE] = 'a' + i;
	volatile int *word = (volatile int *)(p + 64);
	int has = madvise(p + 4 * PAGE, 2 * PAGE, GUARD_INSTALL) == 0; /* Linux 6.15 */
	pid_t pid = ipc_child();
	if (pid == 0) {
		CHECK(!has || madvise(p + 4 * PAGE, 2 * PAGE, GUARD_REMOVE) == 0);
		CHECK(!has || madvise(p + 8 * PAGE, 3 * PAGE, GUARD_INSTALL) == 0);
		for (int n = 1;; n++) {
			while (word[0] >= 0 && word[0] < n)
				ht_nap(1);
			if (word[0] < 0)
				_exit(0);
			CHECK_EQ(p[4 * PAGE], 'e');
			CHECK_EQ(p[5 * PAGE], 'f');
			ipc_tell(&word[1], n);
		}
	}
	CHECK(!has || madvise(p + 8 * PAGE, 4 * PAGE, GUARD_INSTALL) == 0);
	int n = 0;
	while (point()) {
		ipc_tell(&word[0], ++n);
		ipc_await(&word[1], n);
		for (int i = 0; i < PAGES; i++) {
			int guarded = has && (i == 4 || i == 5 || (i >= 8 && i < 12));
			CHECK_EQ(faults(p + i * PAGE), guarded);
			if (guarded)
				CHECK(madvise(p + i * PAGE, PAGE, GUARD_REMOVE) == 0);
			CHECK_EQ(p[i * PAGE], 'a' + i);
			if (guarded)
				CHECK(madvise(p + i * PAGE, PAGE, GUARD_INSTALL) == 0);
		}
	}
	ipc_tell(&word[0], -1);
	ipc_reap(pid);
	return done();
}
