/* Semaphore sets: id, key, mode, values, and who changed each last, and that
 * there was no semop(2) yet. */
#include "ipc.h"

int main(void)
{
	unsigned short set[6] = { 0, 1, 32767, 300, 7, 2 }, got[6];
	struct semid_ds ds;
	union semun arg = { .array = set };

	ht_init();
	int id = semget(ipc_key(0), 6, IPC_CREAT | IPC_EXCL | 0640), ro = semget(ipc_key(1), 1, IPC_CREAT | IPC_EXCL | 0400);
	CHECK(id >= 0 && ro >= 0);
	CHECK_EQ(semctl(id, 0, SETALL, arg), 0);
	int set_only = semget(IPC_PRIVATE, 2, 0600), fresh = semget(IPC_PRIVATE, 2, 0600);
	CHECK(set_only >= 0 && fresh >= 0);
	arg.val = 3;
	CHECK_EQ(semctl(set_only, 0, SETVAL, arg), 0);
	pid_t pid = ipc_child();
	if (pid == 0) {
		struct sembuf op[2] = { { 3, 1, 0 }, { 2, -1, 0 } };

		CHECK_EQ(semop(id, op, 2), 0);
		for (;;)
			pause();
	}
	do
		ht_nap(1);
	while (semctl(id, 3, GETVAL) != 301);
	set[3]++, set[2]--;
	while (point()) {
		arg.array = got;
		CHECK_EQ(semctl(id, 0, GETALL, arg), 0);
		for (int i = 0; i < 6; i++) {
			CHECK_EQ(got[i], set[i]);
			CHECK_EQ(semctl(id, i, GETPID), i == 2 || i == 3 ? pid : getpid());
			CHECK_EQ(semctl(id, i, GETNCNT), 0);
		}
		arg.buf = &ds;
		CHECK_EQ(semctl(id, 0, IPC_STAT, arg), 0);
		CHECK_EQ(ds.sem_perm.mode & 0777, 0640);
		CHECK_EQ(ds.sem_perm.uid, getuid());
		CHECK_EQ(ds.sem_nsems, 6);
		CHECK_EQ(ds.sem_otime == 0, 0);
		CHECK_EQ(semctl(set_only, 0, GETVAL), 3);
		CHECK_EQ(semctl(set_only, 0, GETPID), getpid());
		CHECK_EQ(semctl(fresh, 0, GETPID), 0);
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(semctl(i ? fresh : set_only, 0, IPC_STAT, arg), 0);
			CHECK_EQ(ds.sem_otime, 0);
		}
		CHECK_EQ(semget(ipc_key(0), 6, 0), id);
		CHECK_EQ(semget(ipc_key(1), 1, 0), ro);
		CHECK_EQ(semctl(ro, 0, IPC_STAT, arg), 0);
		CHECK_EQ(ds.sem_perm.mode & 0777, 0400);
		struct sembuf op = { 4, 1, IPC_NOWAIT };
		CHECK_EQ(semop(id, &op, 1), 0);
		set[4]++;
	}
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	arg.buf = &ds;
	CHECK_EQ(semctl(fresh, 0, IPC_STAT, arg), 0);
	CHECK_EQ(ds.sem_otime, 0);
	CHECK_EQ(semctl(id, 0, IPC_RMID), 0);
	CHECK_EQ(semctl(ro, 0, IPC_RMID), 0);
	CHECK_EQ(semctl(set_only, 0, IPC_RMID), 0);
	CHECK_EQ(semctl(fresh, 0, IPC_RMID), 0);
	return done();
}
