/* other files in the places of standard input and standard error */
#include "file.h"

int main(void)
{
	ht_init();
	int f = make("f", O_RDWR, "input");
	CHECK_EQ(dup2(f, 0), 0);
	int err = dup(2), p[2];
	CHECK(err >= 0 && pipe(p) == 0);
	CHECK_EQ(dup2(p[1], 2), 2);
	while (point()) {
		char b[8] = "";
		CHECK_EQ(lseek(0, 0, SEEK_SET), 0);
		CHECK_EQ(read(f, b, 5), 5);
		CHECK(strcmp(b, "input") == 0);
		CHECK_EQ(write(2, "error", 5), 5);
		CHECK_EQ(read(p[0], b, 5), 5);
		CHECK(strcmp(b, "error") == 0);
	}
	dup2(err, 2);
	return done();
}
