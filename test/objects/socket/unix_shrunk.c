/* A queue that was filled before the sender's buffer was made small. */
#include "../socket.h"

int main(void)
{
	int pair[2];
	char buf[8000];

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	for (int i = 0; i < 10; i++) {
		memset(buf, 'a' + i, sizeof buf);
		CHECK(send(pair[0], buf, sizeof buf, MSG_DONTWAIT) == sizeof buf);
	}
	set(pair[0], SOL_SOCKET, SO_SNDBUF, 0);
	int small = option(pair[0], SOL_SOCKET, SO_SNDBUF);
	for (int i = 0; point() && i < 10; i++) {
		CHECK_EQ(option(pair[0], SOL_SOCKET, SO_SNDBUF), small);
		CHECK(send(pair[0], buf, sizeof buf, MSG_DONTWAIT) < 0);
		CHECK_EQ(recv(pair[1], buf, sizeof buf, MSG_DONTWAIT), sizeof buf);
		CHECK(buf[0] == 'a' + i && buf[7999] == 'a' + i);
	}
	return done();
}
