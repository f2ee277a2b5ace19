/* a connection that nobody has accepted yet, and that its client has reset
 * refused: a connection waits to be accepted whose client was closed
 */
#include "tcp.h"

int main(void)
{
	struct linger reset = { 1, 0 };
	char b;

	ht_init();
	int l = listen_at(v4(7042), 8), client = connect_to(names_of(l).own);

	await_event(l, POLLIN);
	CHECK(setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
	close(client);
	while (point())
		CHECK(events_of(l) & POLLIN);
	int server = accept(l, NULL, NULL);
	CHECK(server >= 0);
	CHECK(recv(server, &b, 1, 0) < 0 && errno == ECONNRESET);
	return done();
}
