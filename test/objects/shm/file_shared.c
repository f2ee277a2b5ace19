/* A shared mapping of a regular file: what was written to it is in the file. */
#include "ipc.h"

int main(void)
{
	char text[8];

	ht_init();
	int fd = open(ht_path("data"), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, 200000), 0);
	char *p = mmap(NULL, 200000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	const char *ro = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096);
	CHECK(p != MAP_FAILED && ro != MAP_FAILED);
	CHECK_EQ(close(fd), 0);
	strcpy(p + 4096, "first");
	strcpy(p + 199000, "last");
	int n = 0;
	while (point()) {
		CHECK(!strcmp(p + 4096, "first"));
		CHECK(!strcmp(ro, "first"));
		fd = open(ht_path("data"), O_RDWR | O_CLOEXEC);
		CHECK(fd >= 0);
		CHECK_EQ(pread(fd, text, 5, 199000), 5);
		CHECK(!strcmp(text, "last"));
		p[0] = ++n;
		CHECK_EQ(pread(fd, text, 1, 0), 1);
		CHECK_EQ(text[0], n);
		CHECK_EQ(pwrite(fd, "w", 1, 10), 1);
		CHECK_EQ(p[10], 'w');
		p[10] = 0;
		CHECK_EQ(close(fd), 0);
	}
	return done();
}
