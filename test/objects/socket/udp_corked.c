/* Data that UDP_CORK holds back cannot be read.
 * refused: corked data
 */
#include "../socket.h"

int main(void)
{
	ht_init();
	int fd = socket(AF_INET, SOCK_DGRAM, 0), receiver = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;

	CHECK(bind(receiver, (void *)&a, sizeof a) == 0 && getsockname(receiver, (void *)&a, &len) == 0);
	CHECK(connect(fd, (void *)&a, sizeof a) == 0);
	CHECK_EQ(send(fd, "ab", 2, MSG_MORE), 2);
	while (point()) {
		silent(receiver);
		CHECK_EQ(send(fd, "cd", 2, 0), 2);
		hears(receiver, "abcd");
	}
	return done();
}
