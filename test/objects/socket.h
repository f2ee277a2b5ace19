/* What the fixtures of sockets share. */
#ifndef SOCKET_H
#define SOCKET_H

#include "object.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <linux/sockios.h>

/* unix_addr makes an address of exactly these bytes. */
static inline struct sockaddr_un unix_addr(const void *name, size_t n, socklen_t *len)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	CHECK(n <= sizeof a.sun_path);
	memcpy(a.sun_path, name, n);
	*len = offsetof(struct sockaddr_un, sun_path) + n;
	return a;
}

/* unix_path is an address of a path, or of an abstract name where it begins
 * with '@'. */
static inline struct sockaddr_un unix_path(const char *path, socklen_t *len)
{
	struct sockaddr_un a = unix_addr(path, strlen(path) + (*path != '@'), len);

	if (*path == '@')
		a.sun_path[0] = 0;
	return a;
}

/* abstract is a name of this process alone. */
static inline const char *abstract(const char *name)
{
	static char buf[4][64];
	static int n;
	char *b = buf[n++ % 4];

	snprintf(b, 64, "@hiatus-%ld-%s", (long)getpid(), name);
	return b;
}

static inline int unix_socket(int type, const char *path)
{
	int fd = socket(AF_UNIX, type, 0);

	CHECK(fd >= 0);
	if (path) {
		socklen_t len;
		struct sockaddr_un a = unix_path(path, &len);

		CHECK(bind(fd, (void *)&a, len) == 0);
	}
	return fd;
}

static inline int unix_listener(int type, const char *path)
{
	int fd = unix_socket(type, path);

	CHECK(listen(fd, 8) == 0);
	return fd;
}

static inline void unix_connect(int fd, const char *path)
{
	socklen_t len;
	struct sockaddr_un a = unix_path(path, &len);

	CHECK(connect(fd, (void *)&a, len) == 0);
}

static inline void unix_is_name(int peer, int fd, const char *path)
{
	struct sockaddr_un a = { 0 }, want = { .sun_family = AF_UNIX };
	socklen_t len = sizeof a, want_len = offsetof(struct sockaddr_un, sun_path);

	CHECK((peer ? getpeername : getsockname)(fd, (void *)&a, &len) == 0);
	if (path)
		want = unix_path(path, &want_len);
	CHECK_EQ(len, want_len);
	CHECK(memcmp(&a, &want, len) == 0);
}

#define is_named(fd, path) unix_is_name(0, fd, path)
#define is_connected(fd, path) unix_is_name(1, fd, path)

static inline void say(int fd, const char *text)
{
	CHECK_EQ(send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL), strlen(text));
}

/* hears reads one message, or what a stream has, and compares it. */
static inline void hears(int fd, const char *text)
{
	char buf[4096];
	ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);

	if (n != (ssize_t)strlen(text) || memcmp(buf, text, n))
		FAIL("read %zd bytes \"%.*s\", want \"%s\"", n, n > 0 ? (int)n : 0, buf, text);
}

/* silent checks that nothing is to be read. */
static inline void silent(int fd)
{
	char c;

	CHECK(recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

static inline int option(int fd, int level, int opt)
{
	int v = -1;
	socklen_t len = sizeof v;

	CHECK(getsockopt(fd, level, opt, &v, &len) == 0);
	return v;
}

static inline void set(int fd, int level, int opt, int v)
{
	CHECK(setsockopt(fd, level, opt, &v, sizeof v) == 0);
}

/* send_fds sends text with descriptors. */
static inline void send_fds(int fd, const void *text, size_t size, const int *fds, int n)
{
	char control[CMSG_SPACE(sizeof(int) * 16)] = { 0 };
	struct iovec iov = { (void *)text, size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = CMSG_SPACE(sizeof(int) * n) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * n);
	memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
	CHECK_EQ(sendmsg(fd, &h, MSG_DONTWAIT), size);
}

/* recv_fds reads up to size bytes and returns how many descriptors came. */
static inline int recv_fds(int fd, void *text, size_t size, ssize_t want, int *fds)
{
	char control[CMSG_SPACE(sizeof(int) * 16)];
	struct iovec iov = { text, size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof control };
	int n = 0;

	CHECK_EQ(recvmsg(fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC), want);
	CHECK(!(h.msg_flags & MSG_CTRUNC));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c))
		if (c->cmsg_type == SCM_RIGHTS) {
			n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		}
	return n;
}

#endif
