/* One segment in four processes, inherited and attached, at different addresses. */
#include "ipc.h"

enum { CHILDREN = 3 };

int main(void)
{
	pid_t pid[CHILDREN];
	struct shmid_ds ds;

	ht_init();
	int id = shmget(ipc_key(0), 1 << 16, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	volatile int *word = shmat(id, NULL, 0);
	CHECK(word != (void *)-1);
	for (int i = 0; i < CHILDREN; i++) {
		pid[i] = ipc_child();
		if (pid[i] == 0) {
			if (i > 0) {
				CHECK_EQ(shmdt((void *)word), 0);
				CHECK(mmap(NULL, 4096 << i, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
				word = shmat(id, NULL, 0);
				CHECK(word != (void *)-1);
			}
			for (int round = 1; word[0] >= 0; round++) {
				while (word[0] >= 0 && word[0] < round)
					ht_nap(1);
				ipc_tell(&word[1 + i], word[0] < 0 ? -1 : round);
			}
			_exit(0);
		}
	}
	int round = 0;
	while (point()) {
		ipc_tell(&word[0], ++round);
		for (int i = 0; i < CHILDREN; i++)
			ipc_await(&word[1 + i], round);
		CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
		CHECK_EQ(ds.shm_nattch, 1 + CHILDREN);
	}
	ipc_tell(&word[0], -1);
	for (int i = 0; i < CHILDREN; i++)
		ipc_reap(pid[i]);
	CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
	CHECK_EQ(ds.shm_nattch, 1);
	CHECK_EQ(shmctl(id, IPC_RMID, NULL), 0);
	return done();
}
