/* Packet sockets take what the network brings.
 * as: root
 * refused: packet raw
 */
#include "../socket.h"
#include <linux/if_ether.h>

int main(void)
{
	ht_init();
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	CHECK(fd >= 0);
	while (point())
		CHECK_EQ(option(fd, SOL_SOCKET, SO_DOMAIN), AF_PACKET);
	return done();
}
