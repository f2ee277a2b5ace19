/* options of a connection and of a listener: SOL_SOCKET, TCP, IP */
#include "tcp.h"

static const struct { int level, opt, value; } options[] = {
	{ SOL_SOCKET, SO_KEEPALIVE, 1 }, { SOL_SOCKET, SO_OOBINLINE, 1 },
	{ SOL_SOCKET, SO_REUSEADDR, 1 }, { SOL_SOCKET, SO_REUSEPORT, 1 }, { SOL_SOCKET, SO_TIMESTAMPNS, 1 },
	{ SOL_SOCKET, SO_RCVLOWAT, 7 }, { SOL_SOCKET, SO_DONTROUTE, 1 }, { SOL_SOCKET, SO_BROADCAST, 1 },
	{ SOL_SOCKET, SO_ZEROCOPY, 1 } /* nothing is sent */,
	{ IPPROTO_TCP, TCP_NODELAY, 1 }, { IPPROTO_TCP, TCP_CORK, 1 }, { IPPROTO_TCP, TCP_KEEPIDLE, 77 },
	{ IPPROTO_TCP, TCP_KEEPINTVL, 33 }, { IPPROTO_TCP, TCP_KEEPCNT, 5 }, { IPPROTO_TCP, TCP_SYNCNT, 3 },
	{ IPPROTO_TCP, TCP_LINGER2, 9 }, { IPPROTO_TCP, TCP_USER_TIMEOUT, 12345 },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, 65536 },
	{ IPPROTO_IP, IP_TOS, 0x10 }, { SOL_SOCKET, SO_PRIORITY, 4 } /* which IP_TOS changes */, { IPPROTO_IP, IP_TTL, 33 }, { IPPROTO_IP, IP_RECVTTL, 1 },
	{ IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO },
};

static void set_all(int fd)
{
	struct linger l = { 1, 12 };
	struct timeval receive = { 5, 250000 }, transmit = { 6, 500000 };

	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		set_option(fd, options[i].level, options[i].opt, options[i].value);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &receive, sizeof receive) == 0);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &transmit, sizeof transmit) == 0);
	CHECK(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
}

static void check_all(int fd)
{
	struct linger l;
	struct timeval t;
	char name[16] = "";
	socklen_t size = sizeof l;

	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (option(fd, options[i].level, options[i].opt) != options[i].value)
			FAIL("option %d %d: %d, want %d", options[i].level, options[i].opt,
			     option(fd, options[i].level, options[i].opt), options[i].value);
	CHECK(getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &size) == 0);
	CHECK(l.l_onoff == 1 && l.l_linger == 12);
	size = sizeof t;
	CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, &size) == 0);
	CHECK_EQ(t.tv_sec, 5);
	CHECK(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, &size) == 0);
	CHECK_EQ(t.tv_sec, 6);
	size = sizeof name;
	CHECK(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size) == 0);
	CHECK(strcmp(name, "reno") == 0);
}

int main(void)
{
	ht_init();
	int l = listen_at(v4(7018), 5);
	struct conn c = connection(l);

	set_all(c.fd[0]);
	set_all(l);
	while (point()) {
		check_all(c.fd[0]);
		check_all(l);
		CHECK_EQ(option(c.fd[1], IPPROTO_TCP, TCP_NODELAY), 0);
		CHECK_EQ(option(c.fd[1], SOL_SOCKET, SO_KEEPALIVE), 0);
	}
	return done();
}
