/* A queue of System V messages: all of them in order, with types, empty and large ones. */
#include "ipc.h"

enum { MESSAGES = 40 };

struct text { long type; unsigned char data[8192]; };

static size_t make(struct text *m, int i)
{
	static const size_t sizes[] = { 0, 1, 17, 300 };
	uint64_t seed = i + 1;
	size_t n = i == 5 ? 8192 : sizes[i % 4];

	m->type = i == 3 ? 0x7fffffffffffffff : i % 5 + 1;
	for (size_t j = 0; j < n; j++)
		m->data[j] = ht_random(&seed);
	return n;
}

int main(void)
{
	static struct text want, got;
	struct msqid_ds ds;

	ht_init();
	int id = msgget(ipc_key(0), IPC_CREAT | IPC_EXCL | 0640), empty = msgget(ipc_key(1), IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0 && empty >= 0);
	for (int i = 0; i < MESSAGES; i++) {
		size_t n = make(&want, i);

		CHECK_EQ(msgsnd(id, &want, n, IPC_NOWAIT), 0);
	}
	while (point()) {
		CHECK_EQ(msgctl(id, IPC_STAT, &ds), 0);
		CHECK_EQ(ds.msg_qnum, MESSAGES);
		CHECK_EQ(ds.msg_perm.mode & 0777, 0640);
		CHECK_EQ(ds.msg_lspid, getpid());
		CHECK_EQ(msgget(ipc_key(0), 0), id);
		CHECK_EQ(msgget(ipc_key(1), 0), empty);
		CHECK(msgrcv(empty, &got, 1, 0, IPC_NOWAIT) < 0 && errno == ENOMSG);
		/* once round: every message to the end of the queue */
		for (int i = 0; i < MESSAGES; i++) {
			size_t n = make(&want, i);

			CHECK_EQ(msgrcv(id, &got, sizeof got.data, 0, IPC_NOWAIT), n);
			CHECK_EQ(got.type, want.type);
			CHECK(!memcmp(got.data, want.data, n));
			CHECK_EQ(msgsnd(id, &got, n, IPC_NOWAIT), 0);
		}
	}
	CHECK_EQ(msgrcv(id, &got, sizeof got.data, 0x7fffffffffffffff, IPC_NOWAIT), 300);
	CHECK_EQ(msgctl(id, IPC_RMID, NULL), 0);
	CHECK_EQ(msgctl(empty, IPC_RMID, NULL), 0);
	return done();
}
