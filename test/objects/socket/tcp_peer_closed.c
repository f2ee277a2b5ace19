/* connections whose other end was closed, or reset, or that have ended on both sides */
#include "tcp.h"

int main(void)
{
	ht_init();
	struct conn closed = connection_at(v4(7008)), reset = connection_at(v4(7009)), ended = connection_at(v4(7010));
	struct linger hard = { 1, 0 };
	struct stream s[3] = { 0 };
	char b;

	stream_send(&s[0], closed.fd[1], 3000);
	close(closed.fd[1]);
	await_event(closed.fd[0], POLLRDHUP);
	stream_send(&s[1], reset.fd[1], 3000);
	CHECK(setsockopt(reset.fd[1], SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
	close(reset.fd[1]);
	await_event(reset.fd[0], POLLRDHUP);
	stream_send(&s[2], ended.fd[1], 3000);
	close(ended.fd[1]);
	await_event(ended.fd[0], POLLRDHUP);
	CHECK(shutdown(ended.fd[0], SHUT_WR) == 0);
	ht_nap(20);
	struct names ended_names = names_of(ended.fd[0]);

	CHECK_EQ(ended_names.peer_error, ENOTCONN);
	while (point()) {
		check_names(closed.fd[0], &closed.names[0]);
		check_names(ended.fd[0], &ended_names);
		CHECK_EQ(state_of(closed.fd[0]), TCP_CLOSE_WAIT);
		CHECK_EQ(state_of(reset.fd[0]), TCP_CLOSE);
		CHECK_EQ(state_of(ended.fd[0]), TCP_CLOSE);
		CHECK(events_of(reset.fd[0]) & POLLERR);
		CHECK(!(events_of(ended.fd[0]) & POLLERR));
		CHECK(send(ended.fd[0], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
		stream_read(&s[0], closed.fd[0], 700);
		stream_read(&s[1], reset.fd[0], 700);
		stream_read(&s[2], ended.fd[0], 700);
	}
	stream_drain(&s[0], closed.fd[0]);
	stream_drain(&s[1], reset.fd[0]);
	stream_drain(&s[2], ended.fd[0]);
	CHECK_EQ(recv(closed.fd[0], &b, 1, 0), 0);
	CHECK(recv(reset.fd[0], &b, 1, 0) < 0 && errno == ECONNRESET);
	CHECK_EQ(recv(reset.fd[0], &b, 1, 0), 0);
	CHECK_EQ(recv(ended.fd[0], &b, 1, 0), 0);
	return done();
}
