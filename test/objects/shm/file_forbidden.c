/* a shared mapping of a file that the user may not open any more
 * as: user
 * refused: may not open its file again
 */
#include "ipc.h"
#include <sys/stat.h>

int main(void)
{
	ht_init();
	int fd = open(ht_path("data"), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, 100000), 0);
	char *p = mmap(NULL, 100000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(fchmod(fd, 0400), 0);
	CHECK_EQ(close(fd), 0);
	strcpy(p, "written");
	while (point())
		CHECK(!strcmp(p, "written"));
	return done();
}
