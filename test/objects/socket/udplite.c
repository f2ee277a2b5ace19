/* UDP-Lite with its coverage of checksums. */
#include "../socket.h"

int main(void)
{
	ht_init();
	int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);

	if (fd < 0 && errno == EPROTONOSUPPORT)
		fd = socket(AF_INET, SOCK_DGRAM, 0); /* Linux 7.1 has none any more */
	int lite = option(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDPLITE;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;

	CHECK(bind(fd, (void *)&a, sizeof a) == 0 && getsockname(fd, (void *)&a, &len) == 0);
	if (lite) {
		set(fd, IPPROTO_UDPLITE, 10, 20);
		set(fd, IPPROTO_UDPLITE, 11, 12);
	}
	for (;;) {
		CHECK_EQ(sendto(fd, "self", 4, 0, (void *)&a, sizeof a), 4);
		if (!point())
			break;
		if (lite) {
			CHECK_EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDPLITE);
			CHECK_EQ(option(fd, IPPROTO_UDPLITE, 10), 20);
			CHECK_EQ(option(fd, IPPROTO_UDPLITE, 11), 12);
		}
		hears(fd, "self");
	}
	return done();
}
