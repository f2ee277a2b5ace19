/* O_NOATIME of an own file */
#include "file.h"

int main(void)
{
	ht_init();
	close(make("f", O_RDWR, "content"));
	int fd = open(ht_path("f"), O_RDONLY | O_NOATIME);
	CHECK(fd >= 0);
	while (point()) {
		CHECK(fcntl(fd, F_GETFL) & O_NOATIME);
		reads(fd, 0, "content");
	}
	return done();
}
