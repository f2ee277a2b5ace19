/* Datagrams between sockets of IPv4 and of IPv6, as of "localhost": unread, with
 * their senders. */
#include "../socket.h"

/* mapped is 127.0.0.1 within IPv6. */
static struct sockaddr_in6 mapped(in_port_t port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = port };

	CHECK(inet_pton(AF_INET6, "::ffff:127.0.0.1", &a.sin6_addr) == 1);
	return a;
}

static struct sockaddr_in plain(in_port_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static int bound(int family, in_port_t *port)
{
	int fd = socket(family, SOCK_DGRAM, 0);
	struct sockaddr_in6 a = { .sin6_family = family };
	socklen_t len = sizeof a;

	CHECK(bind(fd, (void *)&a, sizeof a) == 0 && getsockname(fd, (void *)&a, &len) == 0);
	*port = a.sin6_port;
	return fd;
}

static void hears_from(int fd, const char *text, const void *who)
{
	char buf[100];
	struct sockaddr_in6 a;
	socklen_t len = sizeof a;

	CHECK_EQ(recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, (void *)&a, &len), strlen(text));
	CHECK(!memcmp(buf, text, strlen(text)));
	CHECK(!memcmp(&a, who, len));
}

int main(void)
{
	in_port_t port, port6;

	ht_init();
	int fd = bound(AF_INET, &port), fd6 = bound(AF_INET6, &port6);
	in_port_t other, other6; /* of those that have no queue themselves */
	int sender = bound(AF_INET, &other), sender6 = bound(AF_INET6, &other6);
	struct sockaddr_in idle6 = plain(other6);
	struct sockaddr_in6 idle = mapped(other);
	struct sockaddr_in at6 = plain(port6);
	struct sockaddr_in6 from = mapped(port), from6 = mapped(port6);

	for (;;) {
		CHECK_EQ(sendto(fd, "four", 4, 0, (void *)&at6, sizeof at6), 4);
		CHECK_EQ(sendto(fd6, "six", 3, 0, (void *)&from, sizeof from), 3);
		CHECK_EQ(sendto(fd6, "self", 4, 0, (void *)&from6, sizeof from6), 4);
		CHECK_EQ(sendto(sender, "idle", 4, 0, (void *)&at6, sizeof at6), 4);
		CHECK_EQ(sendto(sender6, "idle", 4, 0, (void *)&from, sizeof from), 4);
		if (!point())
			break;
		hears_from(fd6, "four", &from);
		hears_from(fd6, "self", &from6);
		hears_from(fd6, "idle", &idle);
		silent(fd6);
		hears_from(fd, "six", &at6);
		hears_from(fd, "idle", &idle6);
		silent(fd);
	}
	return done();
}
