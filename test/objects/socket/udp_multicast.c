/* Memberships of multicast groups, of IPv4 and IPv6, on loopback. */
#include "../socket.h"
#include <net/if.h>

int main(void)
{
	ht_init();
	int fd = socket(AF_INET, SOCK_DGRAM, 0), fd6 = socket(AF_INET6, SOCK_DGRAM, 0);
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6 };
	socklen_t len = sizeof a, len6 = sizeof a6;
	struct ip_mreqn m = { .imr_ifindex = if_nametoindex("lo") };
	struct ipv6_mreq m6 = { .ipv6mr_interface = if_nametoindex("lo") };

	CHECK(inet_pton(AF_INET, "239.7.8.9", &m.imr_multiaddr) == 1);
	CHECK(inet_pton(AF_INET6, "ff01::789", &m6.ipv6mr_multiaddr) == 1);
	CHECK(bind(fd, (void *)&a, sizeof a) == 0 && getsockname(fd, (void *)&a, &len) == 0);
	CHECK(bind(fd6, (void *)&a6, sizeof a6) == 0 && getsockname(fd6, (void *)&a6, &len6) == 0);
	CHECK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m) == 0);
	CHECK(setsockopt(fd6, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m6, sizeof m6) == 0);
	while (point()) {
		CHECK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m) < 0 && errno == EADDRINUSE);
		CHECK(setsockopt(fd6, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m6, sizeof m6) < 0 && errno == EADDRINUSE);
		int sender = socket(AF_INET, SOCK_DGRAM, 0);
		CHECK(setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &m, sizeof m) == 0);
		a.sin_addr = m.imr_multiaddr;
		CHECK_EQ(sendto(sender, "x", 1, 0, (void *)&a, sizeof a), 1);
		CHECK_EQ(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 5000), 1);
		hears(fd, "x");
		close(sender);
	}
	return done();
}
