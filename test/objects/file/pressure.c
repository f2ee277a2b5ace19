/* a file of pressure stall information that is open for writing: it may have a trigger
 * refused: a trigger of pressure stall information
 * as: root
 */
#include "file.h"

int main(void)
{
	ht_init();
	int fd = open("/proc/pressure/cpu", O_RDWR | O_NONBLOCK);
	CHECK(fd >= 0);
	while (point())
		CHECK(fcntl(fd, F_GETFL) & O_RDWR);
	return done();
}
