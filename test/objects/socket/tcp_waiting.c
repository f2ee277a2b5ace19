/* connections that wait to be accepted, the first of them half-closed */
#include "tcp.h"

int main(void)
{
	ht_init();
	int l = listen_at(v4(7013), 8), client[3];
	struct names n[3];

	for (int i = 0; i < 3; i++) {
		client[i] = connect_own(names_of(l).own);
		n[i] = names_of(client[i]);
		await_tick(client[i]);
	}
	CHECK(shutdown(client[0], SHUT_WR) == 0);
	while (point()) {
		CHECK(events_of(l) & POLLIN);
		for (int i = 0; i < 3; i++)
			check_names(client[i], &n[i]);
	}
	for (int i = 0; i < 3; i++) {
		struct conn c = { .fd = { client[i], accept(l, NULL, NULL) } };
		struct names a = names_of(c.fd[1]);
		char b;

		check_address("the client", a.peer, n[i].own);
		check_address("the server", a.own, n[i].peer);
		if (i == 0)
			CHECK_EQ(recv(c.fd[1], &b, 1, 0), 0);
		else
			talk(&c);
	}
	return done();
}
