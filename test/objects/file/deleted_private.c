/* a private mapping of a deleted file: own pages, and those of the file */
#include "file.h"

int main(void)
{
	ht_init();
	int fd = make("f", O_RDWR, "content");
	CHECK(ftruncate(fd, 8192) == 0);
	char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(m != MAP_FAILED);
	m[0] = 'C';
	CHECK_EQ(pwrite(fd, "second", 6, 4096), 6);
	CHECK(unlink(ht_path("f")) == 0);
	while (point()) {
		CHECK(strcmp(m, "Content") == 0 && strcmp(m + 4096, "second") == 0);
		char b[8] = "";
		CHECK_EQ(pread(fd, b, 7, 0), 7);
		CHECK(strcmp(b, "content") == 0);
	}
	return done();
}
