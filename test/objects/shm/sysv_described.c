/* What an attachment has beside its content: a guard region, MADV_GUARD_INSTALL, with content behind it, and a memory policy, mbind(2). */
#include "ipc.h"
#include "../engine/smaps.h"
#include <linux/mempolicy.h>
#include <sys/syscall.h>

enum { PAGE = 4096, PAGES = 8, GUARD_INSTALL = 102, GUARD_REMOVE = 103 };

int main(void)
{
	unsigned long node = 1;
	int mode;

	ht_init();
	int id = shmget(ipc_key(0), PAGES * PAGE, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	char *p = shmat(id, NULL, 0);
	CHECK(p != (void *)-1);
	for (int i = 0; i < PAGES; i++)
		p[i * PAGE] = 'a' + i;
	int has = madvise(p + 2 * PAGE, PAGE, GUARD_INSTALL) == 0; /* Linux 6.15 */
	int numa = syscall(SYS_mbind, p, PAGES * PAGE, MPOL_BIND, &node, 64, 0) == 0;
	while (point()) {
		for (int i = 0; i < PAGES; i++)
			if (i != 2)
				CHECK_EQ(p[i * PAGE], 'a' + i);
		CHECK_EQ(faults(p + 2 * PAGE), has);
		CHECK(!has || madvise(p + 2 * PAGE, PAGE, GUARD_REMOVE) == 0);
		CHECK_EQ(p[2 * PAGE], 'c');
		CHECK(!has || madvise(p + 2 * PAGE, PAGE, GUARD_INSTALL) == 0);
		if (numa) {
			CHECK_EQ(syscall(SYS_get_mempolicy, &mode, NULL, 0, p, MPOL_F_ADDR), 0);
			CHECK_EQ(mode, MPOL_BIND);
		}
	}
	CHECK_EQ(shmctl(id, IPC_RMID, NULL), 0);
	return done();
}
