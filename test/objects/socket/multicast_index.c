/* IP_MULTICAST_IF by the index of an interface: where datagrams go, of sockets
 * that are bound, not bound, and connected.
 */
#include "../socket.h"
#include <net/if.h>

static struct sockaddr_in at(const char *address, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = port };

	CHECK(inet_pton(AF_INET, address, &a.sin_addr) == 1);
	return a;
}

static int port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof a;

	CHECK(getsockname(fd, (void *)&a, &len) == 0);
	return a.sin_port;
}

int main(void)
{
	ht_init();
	int lo = if_nametoindex("lo"), receiver = socket(AF_INET, SOCK_DGRAM, 0), fd[3];
	struct ip_mreqn by_index = { .imr_ifindex = lo }, member = by_index;
	struct sockaddr_in any = at("0.0.0.0", 0), group, peer;
	int ports[3];

	CHECK(lo > 0);
	CHECK(bind(receiver, (void *)&any, sizeof any) == 0);
	group = at("239.9.8.7", port_of(receiver));
	peer = at("127.0.0.1", port_of(receiver));
	member.imr_multiaddr = group.sin_addr;
	CHECK(setsockopt(receiver, IPPROTO_IP, IP_ADD_MEMBERSHIP, &member, sizeof member) == 0);
	set(receiver, IPPROTO_IP, IP_MULTICAST_ALL, 0);
	for (int i = 0; i < 3; i++) {
		fd[i] = socket(AF_INET, SOCK_DGRAM, 0);
		CHECK(setsockopt(fd[i], IPPROTO_IP, IP_MULTICAST_IF, &by_index, sizeof by_index) == 0);
	}
	set(fd[0], IPPROTO_IP, IP_MULTICAST_TTL, 0);
	CHECK(bind(fd[0], (void *)&any, sizeof any) == 0);
	CHECK(connect(fd[1], (void *)&peer, sizeof peer) == 0);
	for (int i = 0; i < 3; i++)
		ports[i] = port_of(fd[i]);
	CHECK_EQ(ports[2], 0);
	while (point()) {
		for (int i = 0; i < 3; i++) {
			CHECK_EQ(port_of(fd[i]), ports[i]);
			CHECK_EQ(option(fd[i], IPPROTO_IP, IP_MULTICAST_TTL), i > 0);
			CHECK_EQ(option(fd[i], IPPROTO_IP, IP_MULTICAST_LOOP), 1);
			CHECK_EQ(option(fd[i], IPPROTO_IP, IP_MULTICAST_IF), 0);
			CHECK_EQ(sendto(fd[i], "x", 1, 0, (void *)&group, sizeof group), 1);
			CHECK_EQ(poll(&(struct pollfd){ receiver, POLLIN, 0 }, 1, 5000), 1);
			hears(receiver, "x");
			silent(receiver);
		}
		/* Sending has bound it: once more as it was. */
		CHECK(connect(fd[2], &(struct sockaddr){ .sa_family = AF_UNSPEC }, sizeof(struct sockaddr)) == 0);
	}
	return done();
}
