/* data that was sent to a connection that nobody has accepted yet
 * refused: before the other side has accepted it
 */
#include "tcp.h"

int main(void)
{
	ht_init();
	int l = listen_at(v4(7014), 8), client = connect_to(names_of(l).own);
	char b[8];

	CHECK_EQ(send(client, "early", 5, 0), 5);
	while (point())
		CHECK(events_of(l) & POLLIN);
	int server = accept(l, NULL, NULL);
	CHECK(server >= 0);
	CHECK_EQ(recv(server, b, 5, MSG_WAITALL), 5);
	return done();
}
