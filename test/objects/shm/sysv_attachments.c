/* A segment mapped three times, once read-only: id, key, mode, content. */
#include "ipc.h"

int main(void)
{
	const size_t size = 5 * 4096 + 100;
	struct shmid_ds ds;

	ht_init();
	int id = shmget(ipc_key(0), size, IPC_CREAT | IPC_EXCL | 0640);
	CHECK(id >= 0);
	unsigned char *a = shmat(id, NULL, 0), *b = shmat(id, NULL, 0), *ro = shmat(id, NULL, SHM_RDONLY);
	CHECK(a != (void *)-1 && b != (void *)-1 && ro != (void *)-1);
	for (size_t i = 0; i < size; i += 4096)
		memset(a + i, 'a' + i / 4096, 100);
	int n = 0;
	while (point()) {
		CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
		CHECK_EQ(shmget(ipc_key(0), 0, 0), id);
		CHECK_EQ(ds.shm_perm.mode & 0777, 0640);
		CHECK_EQ(ds.shm_perm.uid, getuid());
		CHECK_EQ(ds.shm_perm.cuid, getuid());
		CHECK_EQ(ds.shm_perm.gid, getgid());
		CHECK_EQ(ds.shm_segsz, size);
		CHECK_EQ(ds.shm_nattch, 3);
		CHECK_EQ(ds.shm_cpid, getpid());
		CHECK_EQ(ds.shm_lpid, getpid());
		for (size_t i = 0; i < size; i += 4096)
			for (int j = 1; j < 100; j++)
				CHECK_EQ(ro[i + j], 'a' + i / 4096);
		CHECK_EQ(ro[200], 0);
		a[0] = ++n;
		CHECK_EQ(b[0], n);
		CHECK_EQ(ro[0], n);
		CHECK(mprotect(ro, 4096, PROT_READ | PROT_WRITE) < 0 && errno == EACCES);
	}
	CHECK_EQ(shmdt(ro), 0);
	CHECK_EQ(shmdt(b), 0);
	CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
	CHECK_EQ(ds.shm_nattch, 1);
	CHECK_EQ(shmctl(id, IPC_RMID, NULL), 0);
	return done();
}
