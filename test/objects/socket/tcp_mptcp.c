/* a listener of MPTCP, as Go makes them, and a plain connection that it has accepted */
#include "tcp.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

int main(void)
{
	ht_init();
	union address a = v4(7020);
	int l = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);

	CHECK(l >= 0);
	CHECK(bind(l, &a.sa, sizeof a.in) == 0 && listen(l, 6) == 0);
	struct conn c = connection(l);

	while (point()) {
		CHECK_EQ(option(l, SOL_SOCKET, SO_PROTOCOL), IPPROTO_MPTCP);
		CHECK_EQ(option(c.fd[1], SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
		check_conn_names(&c);
		talk(&c);
		struct conn again = connection(l);
		talk(&again);
		close(again.fd[0]);
		close(again.fd[1]);
	}
	return done();
}
