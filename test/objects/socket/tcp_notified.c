/* a connection with the time of what was sent, which the program has not read
 * refused: an error or a notification is pending
 */
#include "tcp.h"

#include <linux/net_tstamp.h>

int main(void)
{
	char control[256], b[8];
	struct msghdr h = { .msg_control = control, .msg_controllen = sizeof control };

	ht_init();
	struct conn c = connection_at(v4(7045));
	set_option(c.fd[0], SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY);
	CHECK_EQ(send(c.fd[0], "hello", 5, 0), 5);
	await_event(c.fd[0], 0); /* POLLERR always counts */
	while (point())
		CHECK(events_of(c.fd[0]) & POLLERR);
	CHECK_EQ(recvmsg(c.fd[0], &h, MSG_ERRQUEUE), 0);
	CHECK(CMSG_FIRSTHDR(&h));
	CHECK_EQ(recv(c.fd[1], b, 5, MSG_WAITALL), 5);
	return done();
}
