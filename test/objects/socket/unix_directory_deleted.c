/* Names in a directory that is deleted: a connection whose listener has
 * ended, a listener and a datagram socket that are still open. */
#include "../socket.h"

int main(void)
{
	char dir[108], sub[108], gone[108], open[108], dgram[108];

	ht_init();
	strcpy(dir, ht_path("d"));
	strcpy(sub, ht_path("d/e"));
	strcpy(gone, ht_path("d/e/s"));
	strcpy(open, ht_path("d/e/t"));
	strcpy(dgram, ht_path("d/u"));
	CHECK(mkdir(dir, 0700) == 0 && mkdir(sub, 0700) == 0);

	int ended = unix_listener(SOCK_STREAM, gone), listener = unix_listener(SOCK_SEQPACKET, open);
	int client = unix_socket(SOCK_STREAM, NULL), named = unix_socket(SOCK_DGRAM, dgram);
	unix_connect(client, gone);
	int server = accept(ended, NULL, NULL);
	close(ended);
	CHECK(unlink(gone) == 0 && unlink(open) == 0 && unlink(dgram) == 0);
	CHECK(rmdir(sub) == 0 && rmdir(dir) == 0);

	while (point()) {
		is_named(server, gone);
		is_connected(client, gone);
		is_named(listener, open);
		is_named(named, dgram);
		say(client, "x");
		hears(server, "x");
		say(server, "y");
		hears(client, "y");
		CHECK(access(dir, F_OK) < 0 && errno == ENOENT);
	}
	return done();
}
