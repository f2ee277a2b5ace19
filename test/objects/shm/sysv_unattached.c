/* Segments that nobody has attached at the checkpoint, one of them never, and one seen in part.
 * alone: a segment that is read just then stays attached
 */
#include "ipc.h"

int main(void)
{
	struct shmid_ds ds;

	ht_init();
	int id = shmget(ipc_key(0), 40000, IPC_CREAT | IPC_EXCL | 0400);
	int never = shmget(ipc_key(1), 123, IPC_CREAT | IPC_EXCL | 0604);
	int part = shmget(ipc_key(2), 3 * 4096, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0 && never >= 0 && part >= 0);
	char *p = shmat(part, NULL, 0);
	CHECK(p != (void *)-1);
	strcpy(p, "first");
	strcpy(p + 2 * 4096, "last");
	CHECK_EQ(munmap(p + 4096, 2 * 4096), 0);
	memset(&ds, 0, sizeof ds);
	CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
	ds.shm_perm.mode = 0600;
	CHECK_EQ(shmctl(id, IPC_SET, &ds), 0);
	char *q = shmat(id, NULL, 0);
	CHECK(q != (void *)-1);
	strcpy(q + 39000, "kept");
	CHECK_EQ(shmdt(q), 0);
	ds.shm_perm.mode = 0400;
	CHECK_EQ(shmctl(id, IPC_SET, &ds), 0);
	while (point()) {
		CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
		CHECK_EQ(ds.shm_nattch, 0);
		CHECK_EQ(ds.shm_perm.mode & 0777, 0400);
		CHECK_EQ(ds.shm_lpid, getpid());
		CHECK_EQ(shmctl(never, IPC_STAT, &ds), 0);
		CHECK_EQ(ds.shm_nattch, 0);
		CHECK_EQ(ds.shm_segsz, 123);
		CHECK_EQ(shmctl(part, IPC_STAT, &ds), 0);
		CHECK_EQ(ds.shm_nattch, 1);
		q = shmat(id, NULL, SHM_RDONLY);
		CHECK(q != (void *)-1);
		CHECK(!strcmp(q + 39000, "kept"));
		CHECK_EQ(q[0], 0);
		CHECK_EQ(shmdt(q), 0);
		CHECK(!strcmp(p, "first"));
		q = shmat(part, NULL, 0);
		CHECK(q != (void *)-1);
		CHECK(!strcmp(q + 2 * 4096, "last"));
		CHECK_EQ(shmdt(q), 0);
	}
	for (int i = 0; i < 3; i++)
		CHECK_EQ(shmctl(shmget(ipc_key(i), 0, 0), IPC_RMID, NULL), 0);
	return done();
}
