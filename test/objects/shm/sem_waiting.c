/* Processes and threads that wait in semop and semtimedop; threads share undo counts. */
#include "ipc.h"
#include <pthread.h>

static int id;

static void *thread(void *arg)
{
	struct sembuf op[2] = { { 0, -1, SEM_UNDO }, { 2, 1, SEM_UNDO } };
	struct timespec long_time = { 3600, 0 };

	(void)arg;
	CHECK_EQ(semtimedop(id, op, 2, &long_time), 0);
	return NULL;
}

int main(void)
{
	pthread_t t;

	ht_init();
	id = semget(ipc_key(0), 3, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	pid_t pid = ipc_child();
	if (pid == 0) {
		CHECK_EQ(pthread_create(&t, NULL, thread, NULL), 0);
		struct sembuf op = { 1, -1, 0 };
		CHECK_EQ(semop(id, &op, 1), 0);
		CHECK_EQ(pthread_join(t, NULL), 0);
		struct sembuf zero = { 2, 0, 0 };
		CHECK_EQ(semop(id, &zero, 1), 0); /* until main takes it */
		_exit(0);
	}
	while (semctl(id, 0, GETNCNT) != 1 || semctl(id, 1, GETNCNT) != 1)
		ht_nap(1);
	while (point()) {
		while (semctl(id, 0, GETNCNT) != 1 || semctl(id, 1, GETNCNT) != 1)
			ht_nap(1);
		CHECK_EQ(semctl(id, 2, GETVAL), 0);
	}
	struct sembuf both[2] = { { 0, 1, 0 }, { 1, 1, 0 } };
	CHECK_EQ(semop(id, both, 2), 0);
	struct sembuf take = { 2, -1, 0 };
	CHECK_EQ(semop(id, &take, 1), 0);
	ipc_reap(pid);
	CHECK_EQ(semctl(id, 0, GETVAL), 1); /* undone */
	CHECK_EQ(semctl(id, 0, IPC_RMID), 0);
	return done();
}
