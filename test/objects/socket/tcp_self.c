/* a socket that is connected to itself
 * refused: connected to itself
 */
#include "tcp.h"

int main(void)
{
	ht_init();
	union address a = v4(7019);
	int fd = tcp_socket(AF_INET, 0);
	char b;

	CHECK(bind(fd, &a.sa, sizeof a.in) == 0 && connect(fd, &a.sa, sizeof a.in) == 0);
	while (point()) {
		CHECK_EQ(send(fd, "x", 1, 0), 1);
		CHECK_EQ(recv(fd, &b, 1, MSG_WAITALL), 1);
	}
	return done();
}
