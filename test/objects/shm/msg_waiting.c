/* Processes that wait for a message of their type, and for room in a full queue. */
#include "ipc.h"

struct text { long type; char data[64]; };

int main(void)
{
	struct text m = { 1, "" };
	struct msqid_ds ds;

	ht_init();
	int in = msgget(ipc_key(0), IPC_CREAT | IPC_EXCL | 0600), full = msgget(ipc_key(1), IPC_CREAT | IPC_EXCL | 0600);
	CHECK(in >= 0 && full >= 0);
	CHECK_EQ(msgctl(full, IPC_STAT, &ds), 0);
	ds.msg_qbytes = 100;
	CHECK_EQ(msgctl(full, IPC_SET, &ds), 0);
	CHECK_EQ(msgsnd(full, &m, 64, 0), 0);
	pid_t reader = ipc_child();
	if (reader == 0) {
		CHECK_EQ(msgrcv(in, &m, 64, 9, 0), 5);
		CHECK(!strcmp(m.data, "nine"));
		_exit(0);
	}
	pid_t writer = ipc_child();
	if (writer == 0) {
		m.type = 3;
		CHECK_EQ(msgsnd(full, &m, 64, 0), 0);
		_exit(0);
	}
	while (point()) {
		CHECK_EQ(msgctl(full, IPC_STAT, &ds), 0);
		CHECK_EQ(ds.msg_qbytes, 100);
		CHECK_EQ(ds.msg_qnum, 1);
		m.type = 8;
		CHECK_EQ(msgsnd(in, &m, 3, 0), 0);
		CHECK_EQ(msgrcv(in, &m, 64, 8, IPC_NOWAIT), 3);
		CHECK_EQ(waitpid(-1, NULL, WNOHANG), 0);
	}
	m.type = 9;
	strcpy(m.data, "nine");
	CHECK_EQ(msgsnd(in, &m, 5, 0), 0);
	ipc_reap(reader);
	CHECK_EQ(msgrcv(full, &m, 64, 1, 0), 64);
	CHECK_EQ(msgrcv(full, &m, 64, 3, 0), 64);
	ipc_reap(writer);
	CHECK_EQ(msgctl(in, IPC_RMID, NULL), 0);
	CHECK_EQ(msgctl(full, IPC_RMID, NULL), 0);
	return done();
}
