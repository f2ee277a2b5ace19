/* a file and a directory that were renamed since they were opened */
#include "file.h"

int main(void)
{
	char to[600];

	ht_init();
	CHECK(mkdir(ht_path("old"), 0700) == 0);
	int fd = make("old/f", O_RDWR, "content"), dir = open(ht_path("old"), O_RDONLY | O_DIRECTORY);
	strcpy(to, ht_path("new"));
	CHECK(rename(ht_path("old"), to) == 0);
	strcpy(to, ht_path("new/g"));
	CHECK(rename(ht_path("new/f"), to) == 0);
	while (point()) {
		link_is(fd, ht_path("new/g"));
		link_is(dir, ht_path("new"));
		reads(fd, 0, "content");
		CHECK(faccessat(dir, "g", F_OK, 0) == 0);
	}
	return done();
}
