/* An answer of the kernel that was not read: only the kernel could send it
 * again.
 * refused: messages that were not read are queued
 */
#include "../socket.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

int main(void)
{
	ht_init();
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	struct { struct nlmsghdr h; struct ifinfomsg i; } ask = {
		{ sizeof ask, RTM_GETLINK, NLM_F_REQUEST, 1, 0 }, { .ifi_index = 1 } };
	char answer[8192];

	CHECK_EQ(send(fd, &ask, sizeof ask, 0), sizeof ask);
	while (point()) {
		CHECK(recv(fd, answer, sizeof answer, MSG_DONTWAIT) > 0);
		CHECK_EQ(((struct nlmsghdr *)answer)->nlmsg_type, RTM_NEWLINK);
	}
	return done();
}
