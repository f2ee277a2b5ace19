/* System V objects that a child was the last to use, which has ended and is not waited for. */
#include "ipc.h"
#include <sys/wait.h>

struct text { long type; char data[8]; };

static pid_t leave(int queue, int set, int round)
{
	siginfo_t si;
	pid_t child = fork();

	CHECK(child >= 0);
	if (!child) {
		struct text m = { round + 1, "zombie" };
		struct sembuf up = { 0, 1, 0 };

		_exit(msgsnd(queue, &m, sizeof m.data, IPC_NOWAIT) || semop(set, &up, 1));
	}
	CHECK_EQ(waitid(P_PID, child, &si, WEXITED | WNOWAIT), 0);
	return child;
}

int main(void)
{
	struct text m;
	int status;

	ht_init();
	int queue = msgget(ipc_key(0), IPC_CREAT | IPC_EXCL | 0600), set = semget(ipc_key(1), 1, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(queue >= 0 && set >= 0);
	pid_t child = leave(queue, set, 0);
	for (int round = 0; point(); round++) {
		CHECK_EQ(msgrcv(queue, &m, sizeof m.data, 0, IPC_NOWAIT), sizeof m.data);
		CHECK_EQ(m.type, round + 1);
		CHECK_EQ(semctl(set, 0, GETVAL), round + 1);
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(status, 0);
		child = leave(queue, set, round + 1);
	}
	CHECK_EQ(msgctl(queue, IPC_RMID, NULL), 0);
	CHECK_EQ(semctl(set, 0, IPC_RMID), 0);
	return done();
}
