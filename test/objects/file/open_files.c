/* --ckpt-open-files: files whose content is in the image too, also mapped ones
 * launch: --ckpt-open-files
 * restart: --ckpt-open-files
 */
#include "file.h"

int main(void)
{
	char turn = 'a';

	ht_init();
	int fd = make("f", O_RDWR | O_APPEND, "content"), r = open(ht_path("f"), O_RDONLY);
	CHECK(ftruncate(fd, 8192) == 0);
	char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, r, 0);
	CHECK(m != MAP_FAILED && p != MAP_FAILED);
	p[1] = 'O';
	CHECK_EQ(lseek(r, 3, SEEK_SET), 3);
	while (point()) {
		CHECK(same_file(fd, r));
		CHECK(fcntl(fd, F_GETFL) & O_APPEND);
		CHECK_EQ(lseek(r, 0, SEEK_CUR), 3);
		link_is(fd, ht_path("f"));
		CHECK(strcmp(m, "content") == 0 && strcmp(p + 1, "Ontent") == 0);
		m[4096] = ++turn;
		char got;
		CHECK_EQ(pread(r, &got, 1, 4096), 1);
		CHECK(got == turn);
	}
	return done();
}
