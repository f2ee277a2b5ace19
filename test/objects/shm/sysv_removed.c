/* A segment that was removed while it is attached: still shared, gone with its last mapping. */
#include "ipc.h"

int main(void)
{
	struct shmid_ds ds;

	ht_init();
	int id = shmget(ipc_key(0), 8192, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	volatile int *word = shmat(id, NULL, 0);
	CHECK(word != (void *)-1);
	CHECK_EQ(shmctl(id, IPC_RMID, NULL), 0);
	pid_t pid = ipc_child();
	if (pid == 0) {
		for (int n = 1; n > 0; n++) {
			while (word[0] >= 0 && word[0] < n)
				ht_nap(1);
			if (word[0] < 0)
				_exit(0);
			ipc_tell(&word[1], n);
		}
	}
	int n = 0;
	while (point()) {
		ipc_tell(&word[0], ++n);
		ipc_await(&word[1], n);
		CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
		CHECK(ds.shm_perm.mode & 01000);
		CHECK_EQ(ds.shm_nattch, 2);
		CHECK(shmget(ipc_key(0), 0, 0) < 0 && errno == ENOENT);
	}
	ipc_tell(&word[0], -1);
	ipc_reap(pid);
	CHECK_EQ(shmdt((void *)word), 0);
	CHECK(shmctl(id, IPC_STAT, &ds) < 0 && (errno == EINVAL || errno == EIDRM));
	return done();
}
