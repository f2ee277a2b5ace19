/* a client of IPv4 at a server of IPv6, with addresses mapped into it */
#include "tcp.h"

int main(void)
{
	ht_init();
	union address a = v6(2), b = v4(0);
	int l = tcp_socket(AF_INET6, 0);
	struct conn c;

	a.in6.sin6_addr = in6addr_any;
	CHECK(bind(l, &a.sa, sizeof a.in6) == 0 && listen(l, 5) == 0);
	b.in.sin_port = a.in6.sin6_port;
	c.fd[0] = connect_to(b);
	c.fd[1] = accept(l, NULL, NULL);
	CHECK(c.fd[1] >= 0);
	close(l);
	for (int i = 0; i < 2; i++)
		c.names[i] = names_of(c.fd[i]);
	CHECK(IN6_IS_ADDR_V4MAPPED(&c.names[1].own.in6.sin6_addr));
	while (point()) {
		check_conn_names(&c);
		talk(&c);
		CHECK_EQ(option(c.fd[1], IPPROTO_IPV6, IPV6_V6ONLY), 0);
	}
	return done();
}
