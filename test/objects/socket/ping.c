/* ICMP ping sockets: identifier, peer, options.
 * network: own
 * needs: ip unshare
 */
#include "../socket.h"
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

/* echo sends a request, to the peer or to this host, and takes the answer. */
static void echo(int fd, int family, int connected, int sequence)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct icmphdr request = { .type = family == AF_INET ? ICMP_ECHO : ICMP6_ECHO_REQUEST, .un.echo.sequence = htons(sequence) }, reply;
	void *to = family == AF_INET ? (void *)&a : (void *)&a6;
	socklen_t len = family == AF_INET ? sizeof a : sizeof a6;

	CHECK_EQ(sendto(fd, &request, sizeof request, 0, connected ? NULL : to, connected ? 0 : len), sizeof request);
	CHECK_EQ(recv(fd, &reply, sizeof reply, 0), sizeof reply);
	CHECK_EQ(reply.type, family == AF_INET ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY);
	CHECK_EQ(reply.un.echo.sequence, request.un.echo.sequence);
}

static int identifier(int fd)
{
	union { struct sockaddr_in v4; struct sockaddr_in6 v6; } a;
	socklen_t len = sizeof a;

	CHECK(getsockname(fd, (void *)&a, &len) == 0);
	return ntohs(a.v4.sin_port); /* in the same place of both */
}

int main(void)
{
	ht_init();
	int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), fd6 = socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
	int connected = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), fresh = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
	struct sockaddr_in peer = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 own6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(4711) };

	CHECK(fd >= 0 && fd6 >= 0 && connected >= 0 && fresh >= 0);
	CHECK(bind(fd6, (void *)&own6, sizeof own6) == 0);
	CHECK(connect(connected, (void *)&peer, sizeof peer) == 0);
	set(fd, IPPROTO_IP, IP_TTL, 7);
	set(fd, IPPROTO_IP, IP_RECVTTL, 1);
	set(fd6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9);
	echo(fd, AF_INET, 0, 0);
	int id = identifier(fd), id2 = identifier(connected);
	CHECK(id != 0 && id2 != 0);
	for (int n = 1; point(); n++) {
		CHECK_EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_ICMP);
		CHECK_EQ(option(fd6, SOL_SOCKET, SO_PROTOCOL), IPPROTO_ICMPV6);
		CHECK_EQ(identifier(fd), id);
		CHECK_EQ(identifier(connected), id2);
		CHECK_EQ(identifier(fd6), 4711);
		CHECK_EQ(identifier(fresh), 0);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_TTL), 7);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_RECVTTL), 1);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 9);
		echo(fd, AF_INET, 0, n);
		echo(fd6, AF_INET6, 0, n);
		echo(connected, AF_INET, 1, n);
		CHECK(send(fd, "", 0, 0) < 0); /* it has no peer */
	}
	return done();
}
