/* a file with two names: each description keeps the one it was opened by */
#include "file.h"

int main(void)
{
	char other[600];

	ht_init();
	int a = make("a", O_RDWR, "content");
	strcpy(other, ht_path("b"));
	CHECK(link(ht_path("a"), other) == 0);
	int b = open(other, O_RDONLY);
	while (point()) {
		CHECK(same_file(a, b));
		CHECK_EQ(stat_of(a).st_nlink, 2);
		link_is(a, ht_path("a"));
		link_is(b, other);
	}
	return done();
}
