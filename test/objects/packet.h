/* What the fixtures of packet sockets share. */
#ifndef PACKET_H
#define PACKET_H

#include "socket.h"
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>

static inline struct sockaddr_ll packet_addr(int protocol, const char *device)
{
	return (struct sockaddr_ll){ .sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = device ? if_nametoindex(device) : 0 };
}

static inline int packet_socket(int type, int protocol, const char *device)
{
	struct sockaddr_ll a = packet_addr(protocol, device);
	int fd = socket(AF_PACKET, type, 0);

	CHECK(fd >= 0);
	CHECK(bind(fd, (void *)&a, sizeof a) == 0);
	return fd;
}

static inline void is_bound(int fd, int protocol, const char *device)
{
	struct sockaddr_ll want = packet_addr(protocol, device), got;
	socklen_t len = sizeof got;

	CHECK(getsockname(fd, (void *)&got, &len) == 0);
	CHECK_EQ(got.sll_protocol, want.sll_protocol);
	CHECK_EQ(got.sll_ifindex, want.sll_ifindex);
}

/* overhears sends a datagram of size bytes to this host until fd brings it, with
 * so many bytes before the data and len in all. Others send too, and what comes
 * while fd is full is lost. */
static inline void overhears(int fd, int n, int size, int before, int len)
{
	int out = socket(AF_INET, SOCK_DGRAM, 0), in = socket(AF_INET, SOCK_DGRAM, 0), got = 0;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct pollfd comes = { fd, POLLIN, 0 };
	socklen_t alen = sizeof a;
	char data[2048] = "", packet[2048] = "";

	snprintf(data, sizeof data, "%d of %d at %d", n, getpid(), fd);
	CHECK(bind(in, (void *)&a, sizeof a) == 0 && getsockname(in, (void *)&a, &alen) == 0);
	while (got != len || memcmp(packet + before, data, 20) != 0) {
		if (poll(&comes, 1, 0) == 0) {
			CHECK_EQ(sendto(out, data, size, 0, (void *)&a, sizeof a), size);
			if (poll(&comes, 1, 1000) == 0)
				continue;
		}
		memset(packet, 0, sizeof packet);
		got = recv(fd, packet, sizeof packet, 0);
		CHECK(got > 0);
	}
	close(in);
	close(out);
}

/* is_member says whether the interface takes what is sent to the address. */
static inline int is_member(const char *device, const char *address)
{
	char line[256], name[64], hex[64];
	int found = 0;
	FILE *f = fopen("/proc/net/dev_mcast", "r");

	CHECK(f);
	while (fgets(line, sizeof line, f))
		found |= sscanf(line, "%*d %63s %*d %*d %63s", name, hex) == 2 && strcmp(name, device) == 0 && strcmp(hex, address) == 0;
	fclose(f);
	return found;
}

#endif
