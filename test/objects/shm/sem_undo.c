/* Undo counts of several processes, up, down and at the limits; each end gives them back. */
#include "ipc.h"

enum { CHILDREN = 5, SEMS = 4 };

/* what each child does with SEM_UNDO, and what is left of it after that */
static const int undo[CHILDREN][SEMS] = {
	{ 3, 0, -7, 0 }, { -1, 1, 0, 0 }, { 0, 32767, 0, 0 }, { 0, -32767, 500, 0 }, { 0, 0, 0, 0 },
};
static const unsigned short start[SEMS] = { 10, 0, 1000, 5 };

int main(void)
{
	pid_t pid[CHILDREN];
	unsigned short now[SEMS], got[SEMS];
	union semun arg = { .array = memcpy(now, start, sizeof now) };

	ht_init();
	int id = semget(ipc_key(0), SEMS, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	CHECK_EQ(semctl(id, 0, SETALL, arg), 0);
	for (int i = 0; i < CHILDREN; i++) {
		pid[i] = ipc_child();
		if (pid[i] == 0) {
			for (int s = 0; s < SEMS; s++) {
				struct sembuf op[2] = { { s, undo[i][s], SEM_UNDO }, { s, 0, 0 } };

				if (undo[i][s] == 0)
					continue;
				/* the extremes are taken back without undo */
				int extreme = abs(undo[i][s]) == 32767;
				if (extreme && undo[i][s] < 0) {
					struct sembuf up[2] = { { s, 32767 - 1, 0 }, { s, -32767, SEM_UNDO } };
					CHECK_EQ(semop(id, up, 2), 0);
				} else if (extreme) {
					struct sembuf down[3] = { { s, -1, 0 }, { s, 32767, SEM_UNDO }, { s, -32766, 0 } };
					CHECK_EQ(semop(id, down, 3), 0);
				} else {
					CHECK_EQ(semop(id, op, 1), 0);
				}
			}
			kill(getpid(), SIGSTOP);
			for (;;)
				pause();
		}
		int status;
		CHECK_EQ(waitpid(pid[i], &status, WUNTRACED), pid[i]);
		CHECK(WIFSTOPPED(status));
		CHECK_EQ(kill(pid[i], SIGCONT), 0);
	}
	arg.array = now;
	CHECK_EQ(semctl(id, 0, GETALL, arg), 0);
	CHECK_EQ(now[0], 12);
	CHECK_EQ(now[2], 1493);
	while (point()) {
		arg.array = got;
		CHECK_EQ(semctl(id, 0, GETALL, arg), 0);
		for (int s = 0; s < SEMS; s++)
			CHECK_EQ(got[s], now[s]);
	}
	for (int i = 0; i < CHILDREN; i++) {
		CHECK_EQ(kill(pid[i], SIGKILL), 0);
		CHECK_EQ(waitpid(pid[i], NULL, 0), pid[i]);
		CHECK_EQ(semctl(id, 0, GETALL, arg), 0);
		for (int s = 0; s < SEMS; s++) {
			int want = now[s] - undo[i][s];

			/* the kernel stops at the limits, semop(2) BUGS */
			now[s] = want < 0 ? 0 : want > 32767 ? 32767 : want;
			CHECK_EQ(got[s], now[s]);
		}
	}
	CHECK_EQ(semctl(id, 0, IPC_RMID), 0);
	return done();
}
