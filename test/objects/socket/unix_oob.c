/* The out-of-band byte of a UNIX stream.
 * refused: out-of-band data is queued
 */
#include "../socket.h"

int main(void)
{
	int pair[2];
	char c;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	say(pair[0], "a");
	CHECK(send(pair[0], "!", 1, MSG_OOB) == 1);
	say(pair[0], "b");
	while (point()) {
		CHECK(recv(pair[1], &c, 1, MSG_OOB) == 1 && c == '!');
		hears(pair[1], "a");
		hears(pair[1], "b");
	}
	return done();
}
