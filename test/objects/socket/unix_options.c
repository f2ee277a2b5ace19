/* Options and file flags of UNIX sockets. */
#include "../socket.h"

int main(void)
{
	int pair[2];
	struct timeval tv = { 3, 500000 };
	socklen_t len;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	set(pair[0], SOL_SOCKET, SO_RCVLOWAT, 3);
	set(pair[0], SOL_SOCKET, SO_PASSSEC, 1);
	set(pair[0], SOL_SOCKET, SO_TIMESTAMPNS, 1);
	set(pair[0], SOL_SOCKET, SO_PEEK_OFF, 2);
	set(pair[0], SOL_SOCKET, SO_RCVBUF, 5000);
	CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
	CHECK(fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
	CHECK(fcntl(pair[1], F_SETFD, FD_CLOEXEC) == 0);
	say(pair[1], "abcdef");
	int rcvbuf = option(pair[0], SOL_SOCKET, SO_RCVBUF);
	while (point()) {
		struct timeval now;

		CHECK_EQ(option(pair[0], SOL_SOCKET, SO_RCVLOWAT), 3);
		CHECK_EQ(option(pair[0], SOL_SOCKET, SO_PASSSEC), 1);
		CHECK_EQ(option(pair[0], SOL_SOCKET, SO_TIMESTAMPNS), 1);
		CHECK_EQ(option(pair[0], SOL_SOCKET, SO_PEEK_OFF), 2);
		CHECK_EQ(option(pair[0], SOL_SOCKET, SO_RCVBUF), rcvbuf);
		CHECK_EQ(option(pair[1], SOL_SOCKET, SO_RCVLOWAT), 1);
		len = sizeof now;
		CHECK(getsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &now, &len) == 0);
		CHECK(now.tv_sec == 3 && now.tv_usec == 500000);
		CHECK_EQ(fcntl(pair[1], F_GETFL), O_RDWR | O_NONBLOCK);
		CHECK_EQ(fcntl(pair[0], F_GETFL), O_RDWR);
		CHECK_EQ(fcntl(pair[1], F_GETFD), FD_CLOEXEC);
		hears(pair[0], "abcdef");
		set(pair[0], SOL_SOCKET, SO_PEEK_OFF, 2);
		say(pair[1], "abcdef");
	}
	return done();
}
