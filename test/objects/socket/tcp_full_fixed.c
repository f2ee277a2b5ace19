/* full buffers whose sizes the program has set */
#include "tcp.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

/* enlarged tells whether a receive buffer can be made larger than its set size, or than
 * net.ipv4.tcp_rmem: before Linux 5.14 only root may, and a checkpoint that has to is
 * refused. */
static int enlarged(int fd)
{
	int lock;

	return geteuid() == 0 || getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &(socklen_t){ sizeof lock }) == 0;
}

int main(void)
{
	ht_init();
	union address a = v4(7003);
	int l = tcp_socket(AF_INET, 0), receive = enlarged(l);

	if (receive)
		set_option(l, SOL_SOCKET, SO_RCVBUF, 20000);
	set_option(l, SOL_SOCKET, SO_SNDBUF, 30000);
	CHECK(bind(l, &a.sa, sizeof a.in) == 0 && listen(l, 5) == 0);
	struct conn c = connection(l);
	struct stream s[2] = { 0 };

	for (int i = 0; i < 2; i++)
		stream_fill(&s[i], c.fd[i]);
	while (point()) {
		CHECK_EQ(option(c.fd[1], SOL_SOCKET, SO_SNDBUF), 60000);
		CHECK(!receive || option(l, SOL_SOCKET, SO_RCVBUF) == 40000);
		for (int i = 0; i < 2; i++) {
			CHECK(s[i].sent > s[i].read);
			if (receive) {
				stream_drain(&s[i], c.fd[1 - i]);
				stream_fill(&s[i], c.fd[i]);
			} else {
				stream_read(&s[i], c.fd[1 - i], 10000);
				stream_send(&s[i], c.fd[i], 10000);
			}
		}
	}
	for (int i = 0; i < 2; i++)
		stream_drain(&s[i], c.fd[1 - i]);
	talk(&c);
	return done();
}
