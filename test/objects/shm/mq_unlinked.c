/* A queue without a name, another that has taken it, and one that nobody has open. */
#include "ipc.h"

static void round_trip(mqd_t q, const char *text)
{
	char buf[16];
	unsigned prio;

	CHECK_EQ(mq_receive(q, buf, 16, &prio), strlen(text));
	CHECK_EQ(prio, strlen(text));
	CHECK(!memcmp(buf, text, strlen(text)));
	CHECK_EQ(mq_send(q, text, strlen(text), strlen(text)), 0);
}

int main(void)
{
	struct mq_attr attr = { .mq_maxmsg = 3, .mq_msgsize = 16 };

	ht_init();
	mqd_t old = mq_open(ipc_name(0), O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
	CHECK(old >= 0);
	CHECK_EQ(mq_send(old, "old", 3, 3), 0);
	CHECK_EQ(mq_unlink(ipc_name(0)), 0);
	mqd_t new = mq_open(ipc_name(0), O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, &attr);
	CHECK(new >= 0);
	CHECK_EQ(mq_send(new, "newer", 5, 5), 0);
	while (point()) {
		round_trip(old, "old");
		round_trip(new, "newer");
		mqd_t q = mq_open(ipc_name(0), O_RDWR);
		CHECK(q >= 0);
		round_trip(q, "newer");
		CHECK_EQ(mq_close(q), 0);
	}
	CHECK_EQ(mq_unlink(ipc_name(0)), 0);
	return done();
}
