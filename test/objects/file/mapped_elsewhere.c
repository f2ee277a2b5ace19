/* a shared mapping of a file whose only name is somewhere else, which is known to whoever may ask for the number of names
 * as: root
 * refused: its other links (1) are not in
 */
#include "file.h"

int main(void)
{
	char to[600];

	ht_init();
	CHECK_EQ(mkdir(ht_path("a"), 0700), 0);
	CHECK_EQ(mkdir(ht_path("b"), 0700), 0);
	int fd = make("a/f", O_RDWR, "content");
	char *p = mmap(NULL, 7, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(close(fd), 0);
	strcpy(to, ht_path("b/f"));
	CHECK_EQ(link(ht_path("a/f"), to), 0);
	CHECK_EQ(unlink(ht_path("a/f")), 0);
	while (point()) {
		p[0]++;
		fd = open(to, O_RDONLY | O_CLOEXEC);
		CHECK(pread(fd, to + 300, 1, 0) == 1 && to[300] == p[0]);
		CHECK_EQ(close(fd), 0);
	}
	return done();
}
