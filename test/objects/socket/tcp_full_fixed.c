/* full buffers whose sizes the program has set */
#include "tcp.h"

int main(void)
{
	ht_init();
	union address a = v4(7003);
	int l = tcp_socket(AF_INET, 0);

	set_option(l, SOL_SOCKET, SO_RCVBUF, 20000);
	set_option(l, SOL_SOCKET, SO_SNDBUF, 30000);
	CHECK(bind(l, &a.sa, sizeof a.in) == 0 && listen(l, 5) == 0);
	struct conn c = connection(l);
	struct stream s[2] = { 0 };

	for (int i = 0; i < 2; i++)
		stream_fill(&s[i], c.fd[i]);
	while (point()) {
		CHECK_EQ(option(c.fd[1], SOL_SOCKET, SO_SNDBUF), 60000);
		CHECK_EQ(option(l, SOL_SOCKET, SO_RCVBUF), 40000);
		for (int i = 0; i < 2; i++) {
			CHECK(s[i].sent > s[i].read);
			stream_drain(&s[i], c.fd[1 - i]);
			stream_fill(&s[i], c.fd[i]);
		}
	}
	for (int i = 0; i < 2; i++)
		stream_drain(&s[i], c.fd[1 - i]);
	talk(&c);
	return done();
}
