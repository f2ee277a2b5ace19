/* a listening socket: port, backlog, and new connections afterwards */
#include "tcp.h"

static int backlog(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof info;

	CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
	return info.tcpi_sacked;
}

int main(void)
{
	ht_init();
	int l[2] = { listen_at(v4(7004), 7), listen_at(v6(4), 3) };
	struct names n[2] = { names_of(l[0]), names_of(l[1]) };

	while (point())
		for (int i = 0; i < 2; i++) {
			check_names(l[i], &n[i]);
			CHECK_EQ(option(l[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
			CHECK_EQ(option(l[i], SOL_SOCKET, SO_REUSEADDR), 0);
			CHECK_EQ(backlog(l[i]), i == 0 ? 7 : 3);
			struct conn c = connection(l[i]);

			talk(&c);
			close(c.fd[0]);
			close(c.fd[1]);
		}
	return done();
}
