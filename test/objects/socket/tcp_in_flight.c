/* Connections of which one end, or both, are in flight in a UNIX socket, as a
 * server passes them to its workers. */
#include "../socket.h"

enum { PAIRS = 3 };

static int pair[PAIRS][2], carrier[2];

static void connect_pair(int p[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(bind(listener, (void *)&a, len) == 0 && listen(listener, 1) == 0);
	CHECK(getsockname(listener, (void *)&a, &len) == 0);
	p[0] = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(connect(p[0], (void *)&a, len) == 0);
	CHECK((p[1] = accept(listener, NULL, NULL)) >= 0);
	close(listener);
}

/* The accepted end, the connecting end, both. */
static const int passed[PAIRS][2] = { { 0, 1 }, { 1, 0 }, { 1, 1 } };

static void pass(void)
{
	for (int i = 0; i < PAIRS; i++)
		for (int end = 0; end < 2; end++) {
			say(pair[i][end], end ? "from the server" : "from the client");
			if (passed[i][end]) {
				send_fds(carrier[0], "x", 1, &pair[i][end], 1);
				pair[i][end] = -pair[i][end];
			}
		}
	for (int i = 0; i < PAIRS; i++)
		for (int end = 0; end < 2; end++)
			if (pair[i][end] < 0)
				close(-pair[i][end]);
}

int main(void)
{
	char c;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, carrier) == 0);
	for (int i = 0; i < PAIRS; i++)
		connect_pair(pair[i]);
	for (;;) {
		pass();
		if (!point())
			break;
		for (int i = 0; i < PAIRS; i++)
			for (int end = 0; end < 2; end++)
				if (passed[i][end])
					CHECK_EQ(recv_fds(carrier[1], &c, 1, 1, &pair[i][end]), 1);
		for (int i = 0; i < PAIRS; i++) {
			hears(pair[i][1], "from the client");
			hears(pair[i][0], "from the server");
		}
	}
	return done();
}
