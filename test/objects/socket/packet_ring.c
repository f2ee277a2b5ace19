/* Packet sockets with a ring of packets in memory.
 * as: root
 * refused: ring of packets
 */
#include "../packet.h"

int main(void)
{
	ht_init();
	int fd = packet_socket(SOCK_RAW, ETH_P_IP, "lo");
	struct tpacket_req ring = { .tp_block_size = 4096, .tp_block_nr = 4, .tp_frame_size = 2048, .tp_frame_nr = 8 };

	CHECK(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) == 0);
	while (point())
		is_bound(fd, ETH_P_IP, "lo");
	return done();
}
