/* Packet sockets, with privilege: protocol, interface, memberships, options, filter.
 * as: root
 */
#include "../packet.h"

int main(void)
{
	ht_init();
	int raw = packet_socket(SOCK_RAW, ETH_P_IP, "lo"), all = packet_socket(SOCK_DGRAM, ETH_P_ALL, NULL);
	int idle = socket(AF_PACKET, SOCK_RAW, 0), here = packet_socket(SOCK_DGRAM, 0, "lo");
	struct packet_mreq member = { .mr_ifindex = if_nametoindex("lo"), .mr_type = PACKET_MR_MULTICAST, .mr_alen = 6, .mr_address = "\1\0\136\1\2\3" };
	struct sock_filter cut[] = { { BPF_RET | BPF_K, 0, 0, 64 } };
	struct sock_fprog filter = { 1, cut };

	for (int i = 0; i < 2; i++)
		CHECK(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &member, sizeof member) == 0);
	CHECK(setsockopt(raw, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
	set(raw, SOL_PACKET, PACKET_AUXDATA, 1);
	set(raw, SOL_PACKET, PACKET_ORIGDEV, 1);
	set(raw, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
	set(raw, SOL_PACKET, PACKET_QDISC_BYPASS, 1);
	set(idle, SOL_PACKET, PACKET_VERSION, TPACKET_V2);
	set(idle, SOL_PACKET, PACKET_RESERVE, 32);
	set(idle, SOL_PACKET, PACKET_LOSS, 1);
	set(all, SOL_SOCKET, SO_RCVBUF, 50000);
	int room = option(all, SOL_SOCKET, SO_RCVBUF);
	for (int n = 1; point(); n++) {
		is_bound(raw, ETH_P_IP, "lo");
		is_bound(all, ETH_P_ALL, NULL);
		is_bound(here, 0, "lo");
		is_bound(idle, 0, NULL);
		CHECK_EQ(option(raw, SOL_SOCKET, SO_TYPE), SOCK_RAW);
		CHECK_EQ(option(all, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
		CHECK_EQ(option(raw, SOL_PACKET, PACKET_AUXDATA), 1);
		CHECK_EQ(option(raw, SOL_PACKET, PACKET_ORIGDEV), 1);
		CHECK_EQ(option(raw, SOL_PACKET, PACKET_IGNORE_OUTGOING), 1);
		CHECK_EQ(option(raw, SOL_PACKET, PACKET_QDISC_BYPASS), 1);
		CHECK_EQ(option(all, SOL_PACKET, PACKET_AUXDATA), 0);
		CHECK_EQ(option(idle, SOL_PACKET, PACKET_VERSION), TPACKET_V2);
		CHECK_EQ(option(idle, SOL_PACKET, PACKET_RESERVE), 32);
		CHECK_EQ(option(idle, SOL_PACKET, PACKET_LOSS), 1);
		CHECK_EQ(option(all, SOL_SOCKET, SO_RCVBUF), room);
		/* a frame of lo begins with 14 bytes, its IP and UDP headers have 28; the filter cuts behind 64 */
		overhears(raw, n, 200, 42, 64);
		overhears(all, n, 200, 28, 228);
		silent(idle);
		silent(here);
		for (int i = 0; i < 2; i++) { /* a member as often as it was made one */
			CHECK(is_member("lo", "01005e010203"));
			CHECK(setsockopt(raw, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &member, sizeof member) == 0);
		}
		CHECK(!is_member("lo", "01005e010203"));
		for (int i = 0; i < 2; i++)
			CHECK(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &member, sizeof member) == 0);
	}
	return done();
}
