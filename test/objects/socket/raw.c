/* Raw sockets, with privilege: protocol, address, IP_HDRINCL, ICMP_FILTER, ICMP6_FILTER.
 * as: root
 */
#include "../socket.h"
#include <netinet/icmp6.h>

int main(void)
{
	ht_init();
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), fd6 = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), udp = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	int plain = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, got;
	socklen_t len;
	struct icmp6_filter pass, had;

	ICMP6_FILTER_SETBLOCKALL(&pass);
	ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &pass);
	CHECK(fd >= 0 && fd6 >= 0 && udp >= 0);
	set(fd, SOL_RAW, 1, ~1);
	CHECK(setsockopt(fd6, IPPROTO_ICMPV6, ICMP6_FILTER, &pass, sizeof pass) == 0);
	set(fd6, IPPROTO_IPV6, 36, 1); /* IPV6_HDRINCL */
	set(fd, IPPROTO_IP, IP_HDRINCL, 1);
	CHECK(bind(fd, (void *)&a, sizeof a) == 0);
	CHECK(connect(fd, (void *)&a, sizeof a) == 0);
	CHECK(connect(plain, (void *)&a, sizeof a) == 0);
	while (point()) {
		CHECK_EQ(option(fd, SOL_SOCKET, SO_TYPE), SOCK_RAW);
		CHECK_EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_ICMP);
		CHECK_EQ(option(fd6, SOL_SOCKET, SO_PROTOCOL), IPPROTO_ICMPV6);
		CHECK_EQ(option(udp, SOL_SOCKET, SO_PROTOCOL), IPPROTO_RAW);
		CHECK_EQ(option(udp, IPPROTO_IP, IP_HDRINCL), 1);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_HDRINCL), 1);
		CHECK_EQ(option(fd, SOL_RAW, 1), ~1);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, 36), 1);
		len = sizeof had;
		CHECK(getsockopt(fd6, IPPROTO_ICMPV6, ICMP6_FILTER, &had, &len) == 0);
		CHECK(len == sizeof had && memcmp(&had, &pass, len) == 0);
		len = sizeof got;
		CHECK(getsockname(fd, (void *)&got, &len) == 0 && got.sin_addr.s_addr == a.sin_addr.s_addr);
		/* without a port getpeername does not tell; connected is who may send without an address */
		CHECK(send(fd6, "x", 1, MSG_DONTWAIT) < 0 && errno == EDESTADDRREQ);
		CHECK(send(plain, "\0\0\377\377\0\0\0\0", 8, MSG_DONTWAIT) == 8); /* an echo reply */
	}
	return done();
}
