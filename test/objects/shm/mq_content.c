/* A POSIX queue: messages by priority and age, attributes, two descriptions, one of them O_NONBLOCK. */
#include "ipc.h"

static const struct { unsigned prio; const char *text; } want[] = {
	{ 32767, "highest" }, { 9, "nine, first" }, { 9, "nine, second" }, { 9, "" }, { 1, "one" }, { 0, "zero" },
};
enum { MESSAGES = 6 };

int main(void)
{
	struct mq_attr attr = { .mq_maxmsg = 7, .mq_msgsize = 100 };
	char buf[100];
	unsigned prio;

	ht_init();
	mqd_t q = mq_open(ipc_name(0), O_CREAT | O_EXCL | O_RDWR, 0640, &attr), w = mq_open(ipc_name(0), O_WRONLY | O_NONBLOCK);
	CHECK(q >= 0 && w >= 0);
	for (int i = MESSAGES - 1; i >= 0; i--) {
		int at = i == 1 ? 3 : i == 3 ? 1 : i; /* equal priorities in the order of age */

		CHECK_EQ(mq_send(q, want[at].text, strlen(want[at].text), want[at].prio), 0);
	}
	while (point()) {
		CHECK_EQ(mq_getattr(w, &attr), 0);
		CHECK_EQ(attr.mq_maxmsg, 7);
		CHECK_EQ(attr.mq_msgsize, 100);
		CHECK_EQ(attr.mq_curmsgs, MESSAGES);
		CHECK_EQ(attr.mq_flags, O_NONBLOCK);
		CHECK_EQ(mq_getattr(q, &attr), 0);
		CHECK_EQ(attr.mq_flags, 0);
		CHECK_EQ(mq_send(w, "x", 1, 0), 0);
		CHECK(mq_send(w, "x", 1, 0) < 0 && errno == EAGAIN);
		CHECK(mq_receive(w, buf, 100, NULL) < 0 && errno == EBADF);
		for (int i = 0; i < MESSAGES; i++) {
			CHECK_EQ(mq_receive(q, buf, 100, &prio), strlen(want[i].text));
			CHECK_EQ(prio, want[i].prio);
			CHECK(!memcmp(buf, want[i].text, strlen(want[i].text)));
		}
		CHECK_EQ(mq_receive(q, buf, 100, &prio), 1);
		for (int i = 0; i < MESSAGES; i++)
			CHECK_EQ(mq_send(q, want[i].text, strlen(want[i].text), want[i].prio), 0);
		mqd_t again = mq_open(ipc_name(0), O_RDWR);
		CHECK(again >= 0);
		CHECK_EQ(mq_close(again), 0);
	}
	CHECK_EQ(mq_unlink(ipc_name(0)), 0);
	return done();
}
