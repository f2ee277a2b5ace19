/* Netlink sockets of three protocols: port id, groups, options; they still
 * speak with the kernel. */
#include "../socket.h"
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

static int netlink(int protocol, unsigned groups)
{
	int fd = socket(AF_NETLINK, SOCK_RAW, protocol);
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_groups = groups };

	CHECK(fd >= 0 && bind(fd, (void *)&a, sizeof a) == 0);
	return fd;
}

static unsigned port(int fd, unsigned *groups)
{
	struct sockaddr_nl a;
	socklen_t len = sizeof a;

	CHECK(getsockname(fd, (void *)&a, &len) == 0);
	*groups = a.nl_groups;
	return a.nl_pid;
}

int main(void)
{
	ht_init();
	int route = netlink(NETLINK_ROUTE, RTMGRP_LINK), generic = netlink(NETLINK_GENERIC, 0);
	int kobject = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT), user = socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
	int group = RTNLGRP_IPV4_RULE;
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	unsigned groups, ports[2] = { port(route, &groups), port(generic, &groups) };

	set(route, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
	set(route, SOL_NETLINK, NETLINK_EXT_ACK, 1);
	set(route, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
	set(generic, SOL_NETLINK, NETLINK_CAP_ACK, 1);
	set(generic, SOL_NETLINK, NETLINK_NO_ENOBUFS, 1);
	CHECK(connect(generic, (void *)&to, sizeof to) == 0);
	while (point()) {
		struct { struct nlmsghdr h; struct genlmsghdr g; char attr[12]; } ask = {
			{ sizeof ask, GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_ACK, 1, 0 }, { CTRL_CMD_GETFAMILY, 1, 0 }, "\x0b\0\2\0nlctrl" };
		char answer[8192];

		CHECK_EQ(port(route, &groups), ports[0]);
		CHECK_EQ(groups, RTMGRP_LINK | 1 << (group - 1));
		CHECK_EQ(port(generic, &groups), ports[1]);
		CHECK_EQ(option(route, SOL_NETLINK, NETLINK_EXT_ACK), 1);
		CHECK_EQ(option(route, SOL_NETLINK, NETLINK_GET_STRICT_CHK), 1);
		CHECK_EQ(option(generic, SOL_NETLINK, NETLINK_CAP_ACK), 1);
		CHECK_EQ(option(generic, SOL_NETLINK, NETLINK_NO_ENOBUFS), 1);
		CHECK_EQ(option(kobject, SOL_SOCKET, SO_PROTOCOL), NETLINK_KOBJECT_UEVENT);
		CHECK_EQ(option(user, SOL_SOCKET, SO_PROTOCOL), NETLINK_USERSOCK);
		CHECK_EQ(port(user, &groups), 0);
		ask.h.nlmsg_len = NLMSG_LENGTH(sizeof ask.g) + 12;
		CHECK_EQ(send(generic, &ask, ask.h.nlmsg_len, 0), ask.h.nlmsg_len);
		CHECK(recv(generic, answer, sizeof answer, MSG_DONTWAIT) > 0);
		CHECK_EQ(((struct nlmsghdr *)answer)->nlmsg_type, GENL_ID_CTRL);
		CHECK(recv(generic, answer, sizeof answer, MSG_DONTWAIT) > 0); /* the acknowledgement */
		silent(generic);
	}
	return done();
}
