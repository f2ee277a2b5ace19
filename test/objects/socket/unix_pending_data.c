/* Data in a connection that was not accepted cannot be seen by anybody.
 * refused: data was sent to
 */
#include "../socket.h"

int main(void)
{
	ht_init();
	const char *name = abstract("l");
	int l = unix_listener(SOCK_STREAM, name), client = unix_socket(SOCK_STREAM, NULL);

	unix_connect(client, name);
	say(client, "hello");
	while (point()) {
		int server = accept(l, NULL, NULL);

		CHECK(server >= 0);
		hears(server, "hello");
		close(server);
	}
	return done();
}
