/* connections that are half-closed: by the client, by the server, with data to read */
#include "tcp.h"

int main(void)
{
	ht_init();
	struct conn c[2] = { connection_at(v4(7005)), connection_at(v4(7006)) };
	struct stream s[2] = { 0 }, back[2] = { 0 };

	for (int i = 0; i < 2; i++) { /* end i of connection i has sent its last */
		stream_send(&s[i], c[i].fd[i], 5000);
		CHECK(shutdown(c[i].fd[i], SHUT_WR) == 0);
		await_event(c[i].fd[1 - i], POLLRDHUP);
	}
	while (point())
		for (int i = 0; i < 2; i++) {
			check_conn_names(&c[i]);
			CHECK_EQ(state_of(c[i].fd[i]), TCP_FIN_WAIT2);
			CHECK_EQ(state_of(c[i].fd[1 - i]), TCP_CLOSE_WAIT);
			CHECK(events_of(c[i].fd[1 - i]) & POLLRDHUP);
			CHECK(send(c[i].fd[i], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
			stream_read(&s[i], c[i].fd[1 - i], 1000);
			stream_send(&back[i], c[i].fd[1 - i], 300);
			stream_read(&back[i], c[i].fd[i], 100);
		}
	for (int i = 0; i < 2; i++) {
		char b;

		stream_drain(&s[i], c[i].fd[1 - i]);
		CHECK_EQ(recv(c[i].fd[1 - i], &b, 1, 0), 0);
		stream_drain(&back[i], c[i].fd[i]);
	}
	return done();
}
