/* Pairs of socketpair(2) with messages in both directions: their borders, and
 * their end. */
#include "../socket.h"

int main(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	int pair[3][2];

	ht_init();
	for (int i = 0; i < 3; i++)
		CHECK(socketpair(AF_UNIX, types[i], 0, pair[i]) == 0);
	for (int i = 0; i < 3; i++) {
		say(pair[i][0], "one");
		say(pair[i][0], "two");
		say(pair[i][1], "three");
	}
	while (point())
		for (int i = 0; i < 3; i++) {
			CHECK_EQ(option(pair[i][0], SOL_SOCKET, SO_TYPE), types[i]);
			is_named(pair[i][0], NULL);
			is_connected(pair[i][0], NULL);
			if (types[i] == SOCK_STREAM) {
				hears(pair[i][1], "onetwo");
			} else {
				hears(pair[i][1], "one");
				hears(pair[i][1], "two");
			}
			silent(pair[i][1]);
			hears(pair[i][0], "three");
			silent(pair[i][0]);
			say(pair[i][0], "one");
			say(pair[i][0], "two");
			say(pair[i][1], "three");
		}
	return done();
}
