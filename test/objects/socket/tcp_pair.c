/* a TCP connection of IPv4 within a process: names, and data both ways */
#include "tcp.h"

int main(void)
{
	ht_init();
	struct conn c = connection_at(v4(7001));
	struct stream s[2] = { 0 };

	stream_send(&s[0], c.fd[0], 1000);
	stream_send(&s[1], c.fd[1], 3000);
	while (point()) {
		check_conn_names(&c);
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(state_of(c.fd[i]), TCP_ESTABLISHED);
			CHECK_EQ(queued(c.fd[1 - i]), s[i].sent - s[i].read);
			stream_read(&s[i], c.fd[1 - i], 300);
			stream_send(&s[i], c.fd[i], 500);
		}
	}
	for (int i = 0; i < 2; i++)
		stream_drain(&s[i], c.fd[1 - i]);
	talk(&c);
	return done();
}
