/* Options of UDP and IP on UDP sockets. */
#include "../socket.h"
#include <linux/net_tstamp.h>
#include <netinet/udp.h>

int main(void)
{
	ht_init();
	int fd = socket(AF_INET, SOCK_DGRAM, 0), fd6 = socket(AF_INET6, SOCK_DGRAM, 0);
	struct sock_txtime txtime = { CLOCK_MONOTONIC, SOF_TXTIME_REPORT_ERRORS }, got;
	socklen_t len;
	static const int old[] = { IPV6_2292PKTINFO, IPV6_2292HOPOPTS, IPV6_2292DSTOPTS, IPV6_2292RTHDR, IPV6_2292HOPLIMIT };
	struct sockaddr_in any = { .sin_family = AF_INET };

	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set(fd, SOL_SOCKET, SO_BROADCAST, 1);
	set(fd, SOL_SOCKET, SO_RCVBUF, 30000);
	set(fd, IPPROTO_IP, IP_TTL, 7);
	set(fd, IPPROTO_IP, IP_TOS, 16);
	set(fd, IPPROTO_IP, IP_PKTINFO, 1);
	set(fd, IPPROTO_IP, IP_MULTICAST_TTL, 3);
	set(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
	set(fd, IPPROTO_UDP, UDP_CORK, 1);
	set(fd, IPPROTO_UDP, UDP_SEGMENT, 1000);
	set(fd, IPPROTO_UDP, UDP_GRO, 1);
	set(fd6, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	set(fd6, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
	set(fd6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9);
	set(fd6, IPPROTO_UDP, UDP_NO_CHECK6_TX, 1);
	for (int i = 0; i < 5; i++)
		set(fd6, IPPROTO_IPV6, old[i], 1);
	int encap = setsockopt(fd6, IPPROTO_UDP, UDP_ENCAP, &(int){ UDP_ENCAP_L2TPINUDP }, sizeof(int)) == 0;
	CHECK(setsockopt(fd, SOL_SOCKET, SO_TXTIME, &txtime, sizeof txtime) == 0);
	CHECK(bind(fd, (void *)&any, sizeof any) == 0);
	int rcvbuf = option(fd, SOL_SOCKET, SO_RCVBUF);
	while (point()) {
		CHECK_EQ(option(fd, SOL_SOCKET, SO_REUSEADDR), 1);
		CHECK_EQ(option(fd, SOL_SOCKET, SO_BROADCAST), 1);
		CHECK_EQ(option(fd, SOL_SOCKET, SO_RCVBUF), rcvbuf);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_TTL), 7);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_TOS), 16);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_PKTINFO), 1);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_MULTICAST_TTL), 3);
		CHECK_EQ(option(fd, IPPROTO_IP, IP_MULTICAST_LOOP), 0);
		CHECK_EQ(option(fd, IPPROTO_UDP, UDP_CORK), 1);
		CHECK_EQ(option(fd, IPPROTO_UDP, UDP_SEGMENT), 1000);
		CHECK_EQ(option(fd, IPPROTO_UDP, UDP_GRO), 1);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_V6ONLY), 1);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_RECVTCLASS), 1);
		CHECK_EQ(option(fd6, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 9);
		CHECK_EQ(option(fd6, IPPROTO_UDP, UDP_NO_CHECK6_TX), 1);
		for (int i = 0; i < 5; i++)
			CHECK_EQ(option(fd6, IPPROTO_IPV6, old[i]), 1);
		if (encap)
			CHECK_EQ(option(fd6, IPPROTO_UDP, UDP_ENCAP), UDP_ENCAP_L2TPINUDP);
		len = sizeof got;
		CHECK(getsockopt(fd, SOL_SOCKET, SO_TXTIME, &got, &len) == 0);
		CHECK_EQ(got.clockid, CLOCK_MONOTONIC);
		CHECK_EQ(got.flags, SOF_TXTIME_REPORT_ERRORS);
		CHECK(getsockopt(fd6, SOL_SOCKET, SO_TXTIME, &got, &len) == 0);
		CHECK_EQ(got.clockid, 0);
	}
	return done();
}
