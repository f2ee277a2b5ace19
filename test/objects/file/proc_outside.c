/* a file of a process outside the computation
 * refused: which is not a living one of the computation
 */
#include "file.h"

int main(void)
{
	char b[16];

	ht_init();
	int fd = open("/proc/1/status", O_RDONLY);
	CHECK(fd >= 0);
	while (point())
		CHECK(pread(fd, b, sizeof b, 0) > 0);
	return done();
}
