/* Datagrams that came together (UDP_SEGMENT, UDP_GRO) beside one as large that
 * came alone. */
#include "../socket.h"
#include <netinet/udp.h>

static const struct { int size, segment; } messages[] = { { 10000, 1000 }, { 10000, 0 }, { 3100, 1000 }, { 0, 0 }, { 700, 300 } };

enum { COUNT = sizeof messages / sizeof *messages };

static void expect(int fd, int size, int segment)
{
	char data[20000], control[256];
	struct iovec iov = { data, sizeof data };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	int got = 0;

	CHECK_EQ(recvmsg(fd, &h, MSG_DONTWAIT), size);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c))
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO)
			memcpy(&got, CMSG_DATA(c), sizeof got);
	CHECK_EQ(got, segment);
	for (int i = 0; i < size; i++)
		CHECK_EQ(data[i], i / 100);
}

/* together says whether lo brings datagrams together at all: before 5.11 it cuts them. */
static int together(int sender, int receiver, const char *data)
{
	char buf[20000];

	set(sender, IPPROTO_UDP, UDP_SEGMENT, 1000);
	CHECK_EQ(send(sender, data, 2000, 0), 2000);
	ssize_t n = recv(receiver, buf, sizeof buf, 0);
	CHECK(n == 2000 || n == 1000);
	if (n == 1000)
		CHECK_EQ(recv(receiver, buf, sizeof buf, 0), 1000);
	return n == 2000;
}

int main(void)
{
	static const int families[] = { AF_INET, AF_INET6 };
	int sender[2], receiver[2];
	char data[10000];

	ht_init();
	for (int i = 0; i < (int)sizeof data; i++)
		data[i] = i / 100;
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in6 at = { .sin6_family = families[i] };
		socklen_t len = sizeof at;

		receiver[i] = socket(families[i], SOCK_DGRAM, 0);
		sender[i] = socket(families[i], SOCK_DGRAM, 0);
		CHECK(bind(receiver[i], (void *)&at, sizeof at) == 0 && getsockname(receiver[i], (void *)&at, &len) == 0);
		CHECK(connect(sender[i], (void *)&at, len) == 0);
		set(receiver[i], IPPROTO_UDP, UDP_GRO, 1);
	}
	if (!together(sender[0], receiver[0], data)) {
		while (point())
			;
		return done();
	}
	for (;;) {
		for (int i = 0; i < 2 * COUNT; i++) {
			set(sender[i % 2], IPPROTO_UDP, UDP_SEGMENT, messages[i / 2].segment);
			CHECK_EQ(send(sender[i % 2], data, messages[i / 2].size, 0), messages[i / 2].size);
		}
		if (!point())
			break;
		for (int i = 0; i < 2 * COUNT; i++)
			expect(receiver[i % 2], messages[i / 2].size, messages[i / 2].segment);
		for (int i = 0; i < 2; i++) {
			silent(receiver[i]);
			CHECK_EQ(option(receiver[i], IPPROTO_UDP, UDP_GRO), 1);
		}
	}
	return done();
}
