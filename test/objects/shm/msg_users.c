/* Who sent and who received last: msg_lspid, msg_lrpid. */
#include "ipc.h"

int main(void)
{
	struct { long type; char data[8]; } m = { 4, "text" };
	struct msqid_ds ds;

	ht_init();
	int id = msgget(ipc_key(0), IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	pid_t pid = ipc_child();
	if (pid == 0) {
		CHECK_EQ(msgrcv(id, &m, 8, 4, 0), 5);
		CHECK_EQ(msgsnd(id, &m, 2, 0), 0);
		for (;;)
			pause();
	}
	CHECK_EQ(msgsnd(id, &m, 5, 0), 0);
	do {
		ht_nap(1);
		CHECK_EQ(msgctl(id, IPC_STAT, &ds), 0);
	} while (ds.msg_lspid != pid);
	while (point()) {
		CHECK_EQ(msgctl(id, IPC_STAT, &ds), 0);
		CHECK_EQ(ds.msg_lspid, pid);
		CHECK_EQ(ds.msg_lrpid, pid);
		CHECK_EQ(ds.msg_qnum, 1);
		CHECK_EQ(ds.msg_cbytes, 2);
	}
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(msgctl(id, IPC_RMID, NULL), 0);
	return done();
}
