/* A socket of virtual machines.
 * refused: vsock
 */
#include "../socket.h"

int main(void)
{
	ht_init();
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	CHECK(fd >= 0);
	while (point())
		CHECK_EQ(option(fd, SOL_SOCKET, SO_DOMAIN), AF_VSOCK);
	return done();
}
