/*
 * What the fixtures of TCP share: addresses of their own, so that several run
 * beside each other, connections, and streams whose bytes tell their place.
 */
#ifndef TCP_H
#define TCP_H

#include "../object.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static inline socklen_t length(const union address *a)
{
	return a->sa.sa_family == AF_INET ? sizeof a->in : sizeof a->in6;
}

/* v4 is an address on loopback that no other process uses. */
static inline union address v4(int port)
{
	unsigned pid = getpid();
	union address a = { .in = { .sin_family = AF_INET, .sin_port = htons(port) } };

	a.in.sin_addr.s_addr = htonl(127u << 24 | (pid & 0x3fffff) << 2 | 1u << 1);
	return a;
}

/* v6 is ::1, with a port of this process. */
static inline union address v6(int port)
{
	union address a = { .in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT } };

	a.in6.sin6_port = htons(10000 + port % 10 + getpid() % 2000 * 10);
	return a;
}

static inline int tcp_socket(int family, int flags)
{
	int fd = socket(family, SOCK_STREAM | flags, 0);

	CHECK(fd >= 0);
	return fd;
}

static inline int listen_at(union address a, int backlog)
{
	int fd = tcp_socket(a.sa.sa_family, 0);

	CHECK(bind(fd, &a.sa, length(&a)) == 0);
	CHECK(listen(fd, backlog) == 0);
	return fd;
}

static inline int connect_to(union address a)
{
	int fd = tcp_socket(a.sa.sa_family, 0);

	CHECK(connect(fd, &a.sa, length(&a)) == 0);
	return fd;
}

/* own_socket has a port of this process's own address, which no other process is
 * given between the end and the restart. */
static inline int own_socket(int flags)
{
	union address own = v4(0);
	int fd = tcp_socket(AF_INET, flags);

	CHECK(bind(fd, &own.sa, length(&own)) == 0);
	return fd;
}

static inline int connect_own(union address a)
{
	int fd = own_socket(0);

	CHECK(connect(fd, &a.sa, length(&a)) == 0);
	return fd;
}

/* names are what getsockname and getpeername tell. */
struct names { union address own, peer; socklen_t own_size, peer_size; int peer_error; };

static inline struct names names_of(int fd)
{
	struct names n;

	memset(&n, 0, sizeof n);
	n.own_size = sizeof n.own;
	CHECK(getsockname(fd, &n.own.sa, &n.own_size) == 0);
	n.peer_size = sizeof n.peer;
	if (getpeername(fd, &n.peer.sa, &n.peer_size) != 0)
		n.peer_error = errno;
	return n;
}

static inline void check_names(int fd, const struct names *want)
{
	struct names n = names_of(fd);

	CHECK(memcmp(&n, want, sizeof n) == 0);
}

struct address_text { char host[INET6_ADDRSTRLEN]; int port; };

static inline struct address_text text_of(const union address *a)
{
	int is4 = a->sa.sa_family == AF_INET;
	struct address_text t = { .port = ntohs(is4 ? a->in.sin_port : a->in6.sin6_port) };

	CHECK(inet_ntop(a->sa.sa_family, is4 ? (void *)&a->in.sin_addr : (void *)&a->in6.sin6_addr, t.host, sizeof t.host));
	return t;
}

static inline void check_address(const char *what, union address got, union address want)
{
	struct address_text g = text_of(&got), w = text_of(&want);

	if (memcmp(&got, &want, sizeof got) != 0)
		FAIL("%s is %s port %d, want %s port %d", what, g.host, g.port, w.host, w.port);
}

/* conn is a connection whose client is end 0 and whose server is end 1. */
struct conn { int fd[2]; struct names names[2]; };

static inline struct conn connection(int listener)
{
	union address a;
	socklen_t size = sizeof a;
	struct conn c;

	CHECK(getsockname(listener, &a.sa, &size) == 0);
	c.fd[0] = connect_to(a);
	c.fd[1] = accept(listener, NULL, NULL);
	CHECK(c.fd[1] >= 0);
	for (int i = 0; i < 2; i++)
		c.names[i] = names_of(c.fd[i]);
	return c;
}

static inline struct conn connection_at(union address a)
{
	int l = listen_at(a, 5);
	struct conn c = connection(l);

	close(l);
	return c;
}

static inline void check_conn_names(const struct conn *c)
{
	for (int i = 0; i < 2; i++)
		check_names(c->fd[i], &c->names[i]);
}

static inline int state_of(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof info;

	CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
	return info.tcpi_state;
}

static inline int queued(int fd)
{
	int n;

	CHECK(ioctl(fd, FIONREAD, &n) == 0);
	return n;
}

static inline int unsent(int fd)
{
	int n;

	CHECK(ioctl(fd, TIOCOUTQ, &n) == 0);
	return n;
}

static inline int events_of(int fd)
{
	struct pollfd p = { fd, POLLIN | POLLPRI | POLLRDHUP, 0 };

	CHECK(poll(&p, 1, 0) >= 0);
	return p.revents;
}

/* await_event waits for an event of poll. */
static inline void await_event(int fd, int event)
{
	struct pollfd p = { fd, event, 0 };

	CHECK_EQ(poll(&p, 1, 10000), 1);
}

static inline int option(int fd, int level, int opt)
{
	int v = -1;
	socklen_t size = sizeof v;

	CHECK(getsockopt(fd, level, opt, &v, &size) == 0);
	return v;
}

static inline void set_option(int fd, int level, int opt, int v)
{
	if (setsockopt(fd, level, opt, &v, sizeof v) != 0)
		FAIL("setsockopt %d %d to %d", level, opt, v);
}

/* await_tick waits until the kernel's clock shows that the connection, on which
 * nothing was sent, was made before. Those made within a tick may change places. */
static inline void await_tick(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof info;

	while (info.tcpi_last_data_sent == 0)
		CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
}

/* stream is one direction: byte n has the value of its place. */
struct stream { uint64_t sent, read; };

static inline unsigned char byte_at(uint64_t n)
{
	return n * 31 + (n >> 8) * 7 + (n >> 16);
}

/* stream_send sends up to n bytes without waiting; it returns how many. */
static inline size_t stream_send(struct stream *s, int fd, size_t n)
{
	static unsigned char buf[65536];
	size_t done = 0;

	while (done < n) {
		size_t part = n - done < sizeof buf ? n - done : sizeof buf;
		ssize_t r;

		for (size_t i = 0; i < part; i++)
			buf[i] = byte_at(s->sent + i);
		r = send(fd, buf, part, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r < 0) {
			CHECK_EQ(errno, EAGAIN);
			break;
		}
		s->sent += r;
		done += r;
	}
	return done;
}

/* stream_read reads exactly n bytes and compares them. */
static inline void stream_read(struct stream *s, int fd, size_t n)
{
	static unsigned char buf[65536];

	while (n > 0) {
		ssize_t r = recv(fd, buf, n < sizeof buf ? n : sizeof buf, 0);

		if (r <= 0)
			FAIL("recv: %zd, %zu bytes to come, %llu of %llu read", r, n,
			     (unsigned long long)s->read, (unsigned long long)s->sent);
		for (ssize_t i = 0; i < r; i++)
			if (buf[i] != byte_at(s->read + i))
				FAIL("byte %llu differs", (unsigned long long)(s->read + i));
		s->read += r;
		n -= r;
	}
}

/* stream_fill sends until the kernel takes no more, for a while. */
static inline void stream_fill(struct stream *s, int fd)
{
	for (int i = 0; i < 5; i++) {
		stream_send(s, fd, SIZE_MAX);
		ht_nap(20);
	}
}

static inline void stream_drain(struct stream *s, int fd)
{
	stream_read(s, fd, s->sent - s->read);
}

/* talk sends a few bytes both ways. */
static inline void talk(const struct conn *c)
{
	char b[8];

	for (int i = 0; i < 2; i++) {
		CHECK_EQ(send(c->fd[i], "hello", 5, MSG_NOSIGNAL), 5);
		CHECK_EQ(recv(c->fd[1 - i], b, 5, MSG_WAITALL), 5);
		CHECK(memcmp(b, "hello", 5) == 0);
	}
}

#endif
