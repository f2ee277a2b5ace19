/* Datagram sockets with directions shut down: bound, connected, and neither. */
#include "../socket.h"

enum { BOUND, CONNECTED, FRESH, KINDS };

static int loopback(int family, int kind)
{
	int fd = socket(family, SOCK_DGRAM, 0);
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *a = family == AF_INET ? (void *)&a4 : (void *)&a6;
	socklen_t len = family == AF_INET ? sizeof a4 : sizeof a6;

	CHECK(fd >= 0);
	if (kind != FRESH)
		CHECK(bind(fd, a, len) == 0);
	if (kind == CONNECTED) { /* to itself */
		CHECK(getsockname(fd, a, &len) == 0);
		CHECK(connect(fd, a, len) == 0);
		CHECK_EQ(send(fd, "x", 1, 0), 1);
	}
	return fd;
}

/* sending is what an attempt to send says. */
static int sending(int fd, int family)
{
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	void *to = family == AF_INET ? (void *)&to4 : (void *)&to6;
	struct sockaddr_storage peer;
	socklen_t len = sizeof peer;

	if (getpeername(fd, (void *)&peer, &len) == 0)
		return sendto(fd, "y", 1, MSG_NOSIGNAL, NULL, 0) < 0 ? errno : 0;
	return sendto(fd, "y", 1, MSG_NOSIGNAL, to, family == AF_INET ? sizeof to4 : sizeof to6) < 0 ? errno : 0;
}

/* hung is what poll says of directions that are shut down. */
static int hung(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	CHECK(poll(&p, 1, 0) >= 0);
	return p.revents;
}

int main(void)
{
	static const int families[] = { AF_INET, AF_INET6 };
	static const int shows[] = { [SHUT_RD] = POLLRDHUP, [SHUT_WR] = 0, [SHUT_RDWR] = POLLRDHUP | POLLHUP };
	int fd[2][KINDS][3], port[2][KINDS][3];
	struct sockaddr_in6 a;
	socklen_t len;
	char c;

	ht_init();
	for (int f = 0; f < 2; f++)
		for (int kind = 0; kind < KINDS; kind++)
			for (int how = 0; how < 3; how++) {
				int s = fd[f][kind][how] = loopback(families[f], kind);

				CHECK(shutdown(s, how) == 0 || errno == ENOTCONN);
				len = sizeof a;
				CHECK(getsockname(s, (void *)&a, &len) == 0);
				port[f][kind][how] = a.sin6_port;
			}
	while (point()) {
		for (int f = 0; f < 2; f++)
			for (int kind = 0; kind < KINDS; kind++)
				for (int how = 0; how < 3; how++) {
					int s = fd[f][kind][how];

					len = sizeof a;
					CHECK(getsockname(s, (void *)&a, &len) == 0);
					CHECK_EQ(a.sin6_port, port[f][kind][how]);
					CHECK_EQ(hung(s), shows[how]);
					if (kind == CONNECTED)
						CHECK_EQ(recv(s, &c, 1, MSG_PEEK | MSG_DONTWAIT), 1);
				}
	}
	for (int f = 0; f < 2; f++)
		for (int kind = 0; kind < KINDS; kind++)
			for (int how = 0; how < 3; how++)
				CHECK_EQ(sending(fd[f][kind][how], families[f]), how == SHUT_RD ? 0 : EPIPE);
	return done();
}
