/* an end of the stream that waits behind data for which the receiver has no room */
#include "tcp.h"

int main(void)
{
	ht_init();
	struct conn c = connection_at(v4(7007));
	struct stream s = { 0 };
	char b;

	stream_fill(&s, c.fd[0]);
	CHECK(unsent(c.fd[0]) > 0);
	CHECK(shutdown(c.fd[0], SHUT_WR) == 0);
	CHECK_EQ(state_of(c.fd[0]), TCP_FIN_WAIT1);
	while (point()) {
		check_conn_names(&c);
		CHECK(send(c.fd[0], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
		stream_read(&s, c.fd[1], 50000);
		CHECK_EQ(send(c.fd[1], "y", 1, MSG_NOSIGNAL), 1);
		CHECK_EQ(recv(c.fd[0], &b, 1, MSG_WAITALL), 1);
	}
	stream_drain(&s, c.fd[1]);
	CHECK_EQ(recv(c.fd[1], &b, 1, 0), 0);
	return done();
}
