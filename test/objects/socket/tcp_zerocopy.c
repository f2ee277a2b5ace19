/* a connection with SO_ZEROCOPY on which something was sent, and whose
 * notification was read: the next has a number that nothing shows
 * refused: it counts what it has sent with MSG_ZEROCOPY
 */
#include "tcp.h"

#include <linux/errqueue.h>

/* notified waits for a notification and returns its number. */
static unsigned notified(int fd)
{
	char control[256];
	struct sock_extended_err e;
	struct msghdr h = { .msg_control = control, .msg_controllen = sizeof control };

	await_event(fd, 0); /* POLLERR always counts */
	CHECK_EQ(recvmsg(fd, &h, MSG_ERRQUEUE), 0);
	CHECK(CMSG_FIRSTHDR(&h));
	memcpy(&e, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof e);
	CHECK_EQ(e.ee_origin, SO_EE_ORIGIN_ZEROCOPY);
	return e.ee_data;
}

int main(void)
{
	static char data[5000];
	unsigned n = 0;

	ht_init();
	struct conn c = connection_at(v4(7044));
	set_option(c.fd[0], SOL_SOCKET, SO_ZEROCOPY, 1);
	do {
		CHECK_EQ(send(c.fd[0], data, sizeof data, MSG_ZEROCOPY), sizeof data);
		CHECK_EQ(recv(c.fd[1], data, sizeof data, MSG_WAITALL), sizeof data);
		CHECK_EQ(notified(c.fd[0]), n++);
	} while (point());
	return done();
}
