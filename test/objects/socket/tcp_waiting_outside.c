/* A client from outside that waits to be accepted is gone after a restart, and
 * one of the tree is not; of IPv4, at a listener of IPv6.
 * beside: itself
 */
#include "tcp.h"

/* mapped is the address within IPv6. */
static union address mapped(union address a)
{
	union address b = { .in6 = { .sin6_family = AF_INET6, .sin6_port = a.in.sin_port } };

	b.in6.sin6_addr.s6_addr[10] = b.in6.sin6_addr.s6_addr[11] = 0xff;
	memcpy(b.in6.sin6_addr.s6_addr + 12, &a.in.sin_addr, 4);
	return b;
}

/* client connects to where the tree listens. */
static void client(void)
{
	union address a;
	int fd;

	while ((fd = open(ht_path("address"), O_RDONLY)) < 0)
		ht_nap(2);
	CHECK_EQ(read(fd, &a, sizeof a), sizeof a);
	connect_to(a);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int outside = beside(argc, argv);

	ht_init();
	if (outside)
		client();
	union address a = v4(7043);
	int l = listen_at(mapped(a), 8), strangers = 1;
	char from[128];
	strcpy(from, ht_path("address.new"));
	int fd = open(from, O_WRONLY | O_CREAT, 0600);
	CHECK_EQ(write(fd, &a, sizeof a), sizeof a);
	close(fd);
	CHECK(rename(from, ht_path("address")) == 0);
	await_event(l, POLLIN);
	int own = connect_own(a);
	CHECK_EQ(fcntl(l, F_SETFL, O_NONBLOCK), 0);
	while (point()) {
		struct conn c = { .fd = { own, -1 } };
		struct names client = names_of(own);

		for (;; strangers--) {
			c.fd[1] = accept(l, NULL, NULL);
			CHECK(c.fd[1] >= 0);
			union address want = mapped(client.own), peer = names_of(c.fd[1]).peer;
			if (memcmp(&want, &peer, sizeof want) == 0)
				break;
			close(c.fd[1]);
		}
		CHECK(strangers >= 0);
		talk(&c);
		CHECK(accept(l, NULL, NULL) < 0 && errno == EAGAIN);
		close(c.fd[0]);
		close(c.fd[1]);
		own = connect_own(a);
	}
	return done();
}
