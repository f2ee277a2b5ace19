/* A queue in several processes: inherited, read-only, write-only; one waits in mq_receive. */
#include "ipc.h"

int main(void)
{
	struct mq_attr attr = { .mq_maxmsg = 5, .mq_msgsize = 32 };
	char buf[32];

	ht_init();
	mqd_t there = mq_open(ipc_name(0), O_CREAT | O_EXCL | O_RDWR, 0600, &attr), back = mq_open(ipc_name(1), O_CREAT | O_EXCL | O_RDONLY, 0600, &attr);
	CHECK(there >= 0 && back >= 0);
	pid_t pid = ipc_child();
	if (pid == 0) {
		mqd_t in = mq_open(ipc_name(0), O_RDONLY), out = mq_open(ipc_name(1), O_WRONLY);
		unsigned prio;
		ssize_t n;

		CHECK(in >= 0 && out >= 0);
		CHECK_EQ(mq_close(there), 0);
		CHECK_EQ(mq_close(back), 0);
		while ((n = mq_receive(in, buf, 32, &prio)) > 0)
			CHECK_EQ(mq_send(out, buf, n, prio + 1), 0);
		CHECK_EQ(n, 0);
		_exit(0);
	}
	CHECK_EQ(mq_send(there, "kept", 4, 4), 0);
	while (point()) {
		unsigned prio;

		CHECK_EQ(mq_receive(back, buf, 32, &prio), 4);
		CHECK(!memcmp(buf, "kept", 4));
		CHECK_EQ(prio, 5);
		CHECK_EQ(mq_send(there, "kept", 4, 4), 0);
	}
	CHECK_EQ(mq_send(there, "", 0, 0), 0);
	ipc_reap(pid);
	CHECK_EQ(mq_unlink(ipc_name(0)), 0);
	CHECK_EQ(mq_unlink(ipc_name(1)), 0);
	return done();
}
