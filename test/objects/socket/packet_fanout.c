/* Packet sockets that share what comes, PACKET_FANOUT.
 * as: root
 * refused: fanout group
 */
#include "../packet.h"

int main(void)
{
	ht_init();
	int fd = packet_socket(SOCK_RAW, ETH_P_IP, "lo"), group = getpid() & 0xffff;

	set(fd, SOL_PACKET, PACKET_FANOUT, group | PACKET_FANOUT_LB << 16);
	while (point())
		CHECK_EQ(option(fd, SOL_PACKET, PACKET_FANOUT), group | PACKET_FANOUT_LB << 16);
	return done();
}
