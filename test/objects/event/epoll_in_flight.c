/* epoll: one that is in flight in a UNIX socket, which no process could fill again
 * refused: no process has it open that could make it again
 */
#include "../socket.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

int main(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int carrier[2], ep = epoll_create1(0), fd = eventfd(0, 0);

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, carrier) == 0);
	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
	send_fds(carrier[0], "x", 1, &ep, 1);
	close(ep);
	while (point())
		;
	return done();
}
