/* UDP sockets that share a port, each with datagrams of its own: SO_REUSEADDR,
 * SO_REUSEPORT, another address; receivers of a multicast group, and one of
 * broadcasts. Nothing is read: what else would fill one of them again? */
#include "../socket.h"
#include <net/if.h>

static unsigned lo;

static socklen_t size(const struct sockaddr_in6 *at)
{
	return at->sin6_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof *at;
}

/* bound makes a socket at a port that it asks for, and so does not lose when it
 * is not connected any more. */
static int bound(int opt, struct sockaddr_in6 *at)
{
	int fd = socket(at->sin6_family, SOCK_DGRAM, 0);
	socklen_t len = sizeof *at;

	set(fd, SOL_SOCKET, opt, 1);
	CHECK(bind(fd, (void *)at, size(at)) == 0);
	if (at->sin6_port)
		return fd;
	CHECK(getsockname(fd, (void *)at, &len) == 0);
	int same = bound(opt, at);
	close(fd);
	return same;
}

static struct sockaddr_in6 any(int family, in_port_t port)
{
	return (struct sockaddr_in6){ .sin6_family = family, .sin6_port = port };
}

static struct sockaddr_in6 loopback(int family, in_port_t port)
{
	struct sockaddr_in6 a = any(family, port);

	if (family == AF_INET)
		((struct sockaddr_in *)&a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		a.sin6_addr = in6addr_loopback;
	return a;
}

/* to sends from one of the senders, each time from another. */
static void to(const struct sockaddr_in6 *at, const char *text)
{
	static int senders[2][4], next;
	int *s = &senders[at->sin6_family == AF_INET6][next++ % 4];
	struct ip_mreqn m = { .imr_ifindex = lo };

	if (!*s) {
		struct sockaddr_in6 own = loopback(at->sin6_family, 0);

		*s = bound(SO_REUSEPORT, &own);
		set(*s, SOL_SOCKET, SO_BROADCAST, 1);
		if (at->sin6_family == AF_INET)
			CHECK(setsockopt(*s, IPPROTO_IP, IP_MULTICAST_IF, &m, sizeof m) == 0);
	}
	CHECK_EQ(sendto(*s, text, strlen(text), 0, (void *)at, size(at)), strlen(text));
}

/* receivers makes two of a group: for IPv6 lo has no route of groups. */
static void receivers(int member[2], struct sockaddr_in6 *at)
{
	struct ip_mreqn m = { .imr_ifindex = lo };

	CHECK(inet_pton(AF_INET, "239.7.8.10", &m.imr_multiaddr) == 1);
	*at = any(AF_INET, 0);
	member[0] = bound(SO_REUSEADDR, at);
	((struct sockaddr_in *)at)->sin_addr = m.imr_multiaddr;
	member[1] = bound(SO_REUSEADDR, at);
	for (int i = 0; i < 2; i++)
		CHECK(setsockopt(member[i], IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m) == 0);
	to(at, "all");
	to(at, "more");
}

/* has checks that the texts are all that is queued. */
static void has(int fd, const char *first, const char *second)
{
	const char *want[] = { first, second, NULL };
	char buf[100];
	ssize_t n;

	set(fd, SOL_SOCKET, SO_PEEK_OFF, 0);
	for (int i = 0; (n = recv(fd, buf, sizeof buf, MSG_PEEK | MSG_DONTWAIT)) >= 0; i++)
		if (i > 1 || !want[i] || n != (ssize_t)strlen(want[i]) || memcmp(buf, want[i], n))
			FAIL("fd %d has \"%.*s\" at %d", fd, (int)n, buf, i);
		else
			want[i] = NULL;
	CHECK_EQ(errno, EAGAIN);
	set(fd, SOL_SOCKET, SO_PEEK_OFF, -1);
	if (want[0] || want[1])
		FAIL("fd %d does not have \"%s\"", fd, want[0] ? want[0] : want[1]);
}

static struct sockaddr_in6 name(int fd)
{
	struct sockaddr_in6 a = any(0, 0);
	socklen_t len = sizeof a;

	CHECK(getsockname(fd, (void *)&a, &len) == 0);
	return a;
}

int main(void)
{
	static const int families[] = { AF_INET, AF_INET6 }, options[] = { SO_REUSEADDR, SO_REUSEPORT };
	int shared[2][2][3], member[2];
	struct sockaddr_in6 names[2][2][3], at, all;

	ht_init();
	lo = if_nametoindex("lo");
	for (int i = 0; i < 2; i++) {
		for (int j = 0; j < 2; j++) {
			at = loopback(families[i], 0);
			shared[i][j][0] = bound(options[j], &at);
			to(&at, "one");
			to(&at, "two");
			all = any(families[i], at.sin6_port);
			shared[i][j][1] = bound(options[j], &all); /* has none, but would take others' */
			if (j == 1)
				CHECK(connect(shared[i][j][0], (void *)&at, sizeof at) == 0); /* does not take the next */
			shared[i][j][2] = bound(options[j], &at);
			to(&at, "three");
			if (j == 1)
				CHECK(connect(shared[i][j][0], (void *)&(struct sockaddr){ 0 }, sizeof(struct sockaddr)) == 0);
			for (int k = 0; k < 3; k++)
				names[i][j][k] = name(shared[i][j][k]);
		}
	}
	receivers(member, &at);
	at = any(AF_INET, 0);
	((struct sockaddr_in *)&at)->sin_addr.s_addr = htonl(0x7fffffff);
	int broadcast = bound(SO_REUSEADDR, &at);
	to(&at, "everybody");
	while (point()) {
		for (int i = 0; i < 4; i++) {
			int *fd = shared[i / 2][i % 2];

			has(fd[0], "one", "two");
			has(fd[1], NULL, NULL);
			has(fd[2], "three", NULL);
			for (int k = 0; k < 3; k++) {
				struct sockaddr_in6 a = name(fd[k]);

				if (memcmp(&a, &names[i / 2][i % 2][k], sizeof a))
					FAIL("the name of %d %d has changed: port %d, was %d", i, k, ntohs(a.sin6_port),
					     ntohs(names[i / 2][i % 2][k].sin6_port));
			}
		}
		for (int k = 0; k < 2; k++)
			has(member[k], "all", "more");
		has(broadcast, "everybody", NULL);
	}
	at = name(member[1]);
	to(&at, "late");
	for (int k = 0; k < 2; k++) {
		hears(member[k], "all");
		hears(member[k], "more");
		/* before 6.5 ksoftirqd may bring it, behind sendto(2) */
		CHECK_EQ(poll(&(struct pollfd){ member[k], POLLIN, 0 }, 1, 5000), 1);
		hears(member[k], "late");
	}
	return done();
}
