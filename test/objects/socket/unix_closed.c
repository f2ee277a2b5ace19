/* A closed peer: unread data and then the end, or a reset where the peer had
 * unread data itself. */
#include "../socket.h"

int main(void)
{
	int end[2], reset[2], dgram[2];
	char c;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, end) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, reset) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0);
	say(end[0], "rest");
	say(dgram[0], "rest");
	say(reset[1], "never read");
	close(end[0]);
	close(reset[0]);
	close(dgram[0]);
	for (int first = 1; point(); first = 0) {
		if (first) {
			hears(end[1], "rest");
			hears(dgram[1], "rest");
			CHECK(recv(reset[1], &c, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET);
		}
		hears(end[1], "");
		hears(reset[1], "");
		silent(dgram[1]);
		CHECK(send(end[1], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	}
	return done();
}
