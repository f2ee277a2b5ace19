/* one description of a deleted file for writing only, one for reading only */
#include "file.h"

int main(void)
{
	char b[8], turn = '0';

	ht_init();
	int w = make("f", O_WRONLY, "content"), r = open(ht_path("f"), O_RDONLY);
	CHECK(r >= 0 && unlink(ht_path("f")) == 0);
	while (point()) {
		CHECK(read(w, b, 1) < 0 && errno == EBADF);
		CHECK(write(r, b, 1) < 0 && errno == EBADF);
		turn++;
		CHECK_EQ(pwrite(w, &turn, 1, 7), 1);
		CHECK_EQ(pread(r, b, 8, 0), 8);
		CHECK(memcmp(b, "content", 7) == 0 && b[7] == turn);
	}
	return done();
}
