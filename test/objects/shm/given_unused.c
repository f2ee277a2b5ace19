/* Semaphores that were given to another user, and that nobody has used: they come back as
 * the user's own.
 * as: user
 */
#include "ipc.h"

int main(void)
{
	struct semid_ds ds;
	union semun arg = { .buf = &ds };

	ht_init();
	int id = semget(ipc_key(0), 3, IPC_CREAT | IPC_EXCL | 0640);
	CHECK(id >= 0);
	CHECK_EQ(semctl(id, 0, IPC_STAT, arg), 0);
	ds.sem_perm.uid = 65534;
	CHECK_EQ(semctl(id, 0, IPC_SET, arg), 0);
	while (point()) {
		CHECK_EQ(semctl(id, 0, IPC_STAT, arg), 0);
		CHECK(ds.sem_perm.uid == 65534 || ds.sem_perm.uid == getuid());
		CHECK_EQ(ds.sem_perm.cuid, getuid());
		CHECK_EQ(ds.sem_perm.mode & 0777, 0640);
		CHECK_EQ(ds.sem_nsems, 3);
		CHECK_EQ(semget(ipc_key(0), 0, 0), id);
	}
	CHECK_EQ(semctl(id, 0, IPC_RMID), 0);
	return done();
}
