/* a segment in use that was given to another user, who does not exist in the user
 * namespace of a restart
 * as: user
 * refused: whom only root can give it again
 */
#include "ipc.h"

int main(void)
{
	struct shmid_ds ds;

	ht_init();
	int id = shmget(ipc_key(0), 4096, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	CHECK(shmat(id, NULL, 0) != (void *)-1);
	CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
	ds.shm_perm.uid = 65534;
	CHECK_EQ(shmctl(id, IPC_SET, &ds), 0);
	while (point())
		;
	CHECK_EQ(shmctl(id, IPC_RMID, NULL), 0);
	return done();
}
