/* Where and how multicast datagrams go: IP_MULTICAST_IF by address and
 * IPV6_MULTICAST_IF, IP_UNICAST_IF and IPV6_UNICAST_IF; TTL, hops, loop, all.
 */
#include "../socket.h"
#include <net/if.h>

int main(void)
{
	ht_init();
	int fd = socket(AF_INET, SOCK_DGRAM, 0), fd6 = socket(AF_INET6, SOCK_DGRAM, 0);
	int plain = socket(AF_INET, SOCK_DGRAM, 0), plain6 = socket(AF_INET6, SOCK_DGRAM, 0);
	struct in_addr loopback = { htonl(INADDR_LOOPBACK) }, got;
	socklen_t len;
	int lo = if_nametoindex("lo");

	CHECK(lo > 0);
	CHECK(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &loopback, sizeof loopback) == 0);
	set(fd, IPPROTO_IP, IP_UNICAST_IF, htonl(lo));
	set(fd, IPPROTO_IP, IP_MULTICAST_TTL, 5);
	set(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
	set(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
	set(fd6, IPPROTO_IPV6, IPV6_MULTICAST_IF, lo);
	set(fd6, IPPROTO_IPV6, IPV6_UNICAST_IF, htonl(lo));
	set(fd6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 6);
	set(fd6, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0);
	set(fd6, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);
	while (point()) {
		len = sizeof got;
		CHECK(getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &got, &len) == 0);
		CHECK_EQ(got.s_addr, loopback.s_addr);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_UNICAST_IF), (int)htonl(lo));
		CHECK_EQ(option(fd, IPPROTO_IP, IP_MULTICAST_TTL), 5);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_MULTICAST_LOOP), 0);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_MULTICAST_ALL), 0);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_MULTICAST_IF), lo);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_UNICAST_IF), (int)htonl(lo));
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS), 6);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_MULTICAST_LOOP), 0);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_MULTICAST_ALL), 0);
		CHECK_EQ(option(plain, IPPROTO_IP, IP_MULTICAST_IF), 0);
		CHECK_EQ(option(plain, IPPROTO_IP, IP_UNICAST_IF), 0);
		CHECK_EQ(option(plain6, IPPROTO_IPV6, IPV6_MULTICAST_IF), 0);
	}
	return done();
}
