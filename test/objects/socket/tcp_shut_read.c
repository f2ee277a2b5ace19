/* SHUT_RD by one end: what had come is read, and then the end of the stream */
#include "tcp.h"

int main(void)
{
	ht_init();
	struct conn c = connection_at(v4(7024));
	struct stream s = { 0 };
	char b;

	stream_send(&s, c.fd[0], 1000);
	await_event(c.fd[1], POLLIN);
	CHECK(shutdown(c.fd[1], SHUT_RD) == 0);
	while (point()) {
		CHECK_EQ(state_of(c.fd[1]), TCP_ESTABLISHED);
		CHECK(events_of(c.fd[1]) & POLLRDHUP);
		stream_read(&s, c.fd[1], 200);
		CHECK_EQ(send(c.fd[1], "z", 1, MSG_NOSIGNAL), 1);
		CHECK_EQ(recv(c.fd[0], &b, 1, MSG_WAITALL), 1);
	}
	stream_drain(&s, c.fd[1]);
	CHECK_EQ(recv(c.fd[1], &b, 1, 0), 0);
	return done();
}
