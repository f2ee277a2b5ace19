/* Empty messages between others, at the end of a queue, and at the end of a
 * connection. */
#include "../socket.h"

static void fill(int fd)
{
	say(fd, "");
	say(fd, "a");
	say(fd, "");
	say(fd, "");
	say(fd, "b");
	say(fd, "");
}

static void drain(int fd)
{
	hears(fd, "");
	hears(fd, "a");
	hears(fd, "");
	hears(fd, "");
	hears(fd, "b");
	hears(fd, "");
}

int main(void)
{
	int dgram[2], seq[2], ended[2];
	char c;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, seq) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ended) == 0);
	fill(dgram[0]);
	fill(seq[0]);
	say(ended[0], "");
	say(ended[0], "");
	CHECK(shutdown(ended[0], SHUT_WR) == 0);
	set(ended[1], SOL_SOCKET, SO_TIMESTAMP, 1);
	for (int left = 2; point(); left = left ? left - 1 : 0) {
		drain(dgram[1]);
		silent(dgram[1]);
		drain(seq[1]);
		silent(seq[1]);
		/* one of the two a time: a message carries a time, the end does not */
		char control[64];
		struct iovec iov = { &c, 1 };
		struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };

		CHECK_EQ(recvmsg(ended[1], &h, MSG_DONTWAIT), 0);
		CHECK_EQ(h.msg_controllen > 0, left > 0);
		fill(dgram[0]);
		fill(seq[0]);
	}
	return done();
}
