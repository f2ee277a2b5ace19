/* data that TCP_CORK holds back */
#include "tcp.h"

int main(void)
{
	ht_init();
	struct conn c = connection_at(v4(7023));
	struct stream s = { 0 };

	set_option(c.fd[0], IPPROTO_TCP, TCP_CORK, 1);
	stream_send(&s, c.fd[0], 100);
	while (point()) {
		CHECK_EQ(option(c.fd[0], IPPROTO_TCP, TCP_CORK), 1);
		stream_send(&s, c.fd[0], 100);
		stream_read(&s, c.fd[1], 50);
	}
	stream_drain(&s, c.fd[1]);
	return done();
}
