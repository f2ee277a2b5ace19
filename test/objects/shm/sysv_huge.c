/* a System V segment of huge pages, where the administrator has set some aside
 * as: root
 */
#include "../object.h"
#include <sys/ipc.h>
#include <sys/shm.h>

#define HUGE (2L << 20)

int main(void)
{
	struct shmid_ds ds;

	ht_init();
	int id = shmget(IPC_PRIVATE, HUGE, IPC_CREAT | SHM_HUGETLB | 0600);
	char *p = id < 0 ? NULL : shmat(id, NULL, 0);
	if (p) {
		CHECK(p != (char *)-1);
		memset(p, 5, 8192);
		CHECK(shmctl(id, IPC_RMID, NULL) == 0); /* so that none stays behind */
	}
	while (point()) {
		if (!p)
			continue;
		CHECK(p[0] == 5 && p[8191] == 5 && p[8192] == 0);
		CHECK(shmctl(id, IPC_STAT, &ds) == 0);
		CHECK_EQ(ds.shm_segsz, HUGE);
		CHECK_EQ(ds.shm_nattch, 1);
	}
	return done();
}
