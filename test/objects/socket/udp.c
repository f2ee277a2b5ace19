/* UDP of IPv4 and IPv6, connected and not: addresses, and queued datagrams
 * with their senders, an empty one and one of a closed socket among them. */
#include "../socket.h"

static struct sockaddr_in6 own(int fd)
{
	struct sockaddr_in6 a = { 0 };
	socklen_t len = sizeof a;

	CHECK(getsockname(fd, (void *)&a, &len) == 0);
	return a;
}

static int at_loopback(int family)
{
	int fd = socket(family, SOCK_DGRAM, 0);
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	CHECK(fd >= 0);
	CHECK(bind(fd, family == AF_INET ? (void *)&a4 : (void *)&a6, family == AF_INET ? sizeof a4 : sizeof a6) == 0);
	return fd;
}

static void to(int fd, const char *text, int receiver)
{
	struct sockaddr_in6 a = own(receiver);

	CHECK_EQ(sendto(fd, text, strlen(text), 0, (void *)&a, a.sin6_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof a), strlen(text));
}

static void from(int fd, const char *text, struct sockaddr_in6 who)
{
	char buf[100];
	struct sockaddr_in6 a = { 0 };
	socklen_t len = sizeof a;

	CHECK_EQ(recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, (void *)&a, &len), strlen(text));
	CHECK(!memcmp(buf, text, strlen(text)));
	CHECK(!memcmp(&a, &who, sizeof a));
}

int main(void)
{
	static const int families[] = { AF_INET, AF_INET6 };
	int receiver[2], sender[2], client[2];
	struct sockaddr_in6 names[2][3], dead[2];

	ht_init();
	for (int i = 0; i < 2; i++) {
		receiver[i] = at_loopback(families[i]);
		sender[i] = at_loopback(families[i]);
		client[i] = socket(families[i], SOCK_DGRAM | SOCK_NONBLOCK, 0);
		names[i][0] = own(receiver[i]);
		CHECK(connect(client[i], (void *)&names[i][0], sizeof names[i][0]) == 0);
		names[i][1] = own(sender[i]);
		names[i][2] = own(client[i]);
	}
	int idle = socket(AF_INET, SOCK_DGRAM, 0);
	for (;;) {
		for (int i = 0; i < 2; i++) {
			int gone = at_loopback(families[i]);

			dead[i] = own(gone);
			to(sender[i], "one", receiver[i]);
			to(sender[i], "", receiver[i]);
			to(gone, "two", receiver[i]);
			close(gone);
			say(client[i], "three");
			to(receiver[i], "back", client[i]);
		}
		if (!point())
			break;
		for (int i = 0; i < 2; i++) {
			struct sockaddr_in6 a;
			socklen_t len = sizeof a;

			a = own(receiver[i]);
			CHECK(!memcmp(&a, &names[i][0], sizeof a));
			a = own(client[i]);
			CHECK(!memcmp(&a, &names[i][2], sizeof a));
			memset(&a, 0, sizeof a);
			CHECK(getpeername(client[i], (void *)&a, &len) == 0);
			CHECK(!memcmp(&a, &names[i][0], sizeof a));
			CHECK_EQ(fcntl(client[i], F_GETFL), O_RDWR | O_NONBLOCK);
			from(receiver[i], "one", names[i][1]);
			from(receiver[i], "", names[i][1]);
			from(receiver[i], "two", dead[i]);
			from(receiver[i], "three", names[i][2]);
			silent(receiver[i]);
			from(client[i], "back", names[i][0]);
			silent(client[i]);
			/* a stranger does not reach a connected one */
			to(sender[i], "x", client[i]);
			silent(client[i]);
		}
		CHECK_EQ(own(idle).sin6_port, 0);
	}
	return done();
}
