/* the name by which a file was opened is gone, another one is left */
#include "file.h"

int main(void)
{
	char other[600];

	ht_init();
	CHECK(mkdir(ht_path("sub"), 0700) == 0);
	int a = make("a", O_RDWR, "content");
	strcpy(other, ht_path("sub/b"));
	CHECK(link(ht_path("a"), other) == 0 && unlink(ht_path("a")) == 0);
	CHECK_EQ(lseek(a, 3, SEEK_SET), 3);
	while (point()) {
		int b = open(other, O_RDONLY);
		CHECK(same_file(a, b));
		close(b);
		CHECK_EQ(stat_of(a).st_nlink, 1);
		CHECK_EQ(lseek(a, 0, SEEK_CUR), 3);
	}
	return done();
}
