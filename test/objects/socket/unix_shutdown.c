/* Directions that are shut down, each with data that was sent before, and of
 * sockets that never were connected. */
#include "../socket.h"

int main(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM };
	int pair[3][3][2], lone[3][3];
	char c;

	ht_init();
	for (int i = 0; i < 3; i++)
		for (int how = 0; how < 3; how++) {
			CHECK(socketpair(AF_UNIX, types[i], 0, pair[i][how]) == 0);
			CHECK(send(pair[i][how][0], "x", 1, 0) == 1);
			CHECK(send(pair[i][how][1], "y", 1, 0) == 1);
			CHECK(shutdown(pair[i][how][0], how) == 0);
			lone[i][how] = unix_socket(types[i], NULL);
			CHECK(shutdown(lone[i][how], how) == 0);
		}
	while (point())
		for (int i = 0; i < 3; i++)
			for (int how = 0; how < 3; how++) {
				int *p = pair[i][how];
				struct pollfd alone = { .fd = lone[i][how], .events = POLLRDHUP };

				CHECK(poll(&alone, 1, 0) >= 0);
				CHECK_EQ(!!(alone.revents & POLLRDHUP), how != SHUT_WR);
				CHECK_EQ(recv(p[1], &c, 1, MSG_PEEK | MSG_DONTWAIT), 1);
				CHECK(c == 'x');
				if (how != SHUT_RD) {
					CHECK(send(p[0], "z", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
				} else {
					CHECK(send(p[1], "z", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
				}
				CHECK_EQ(recv(p[0], &c, 1, MSG_PEEK | MSG_DONTWAIT), 1);
				CHECK(c == 'y');
			}
	return done();
}
