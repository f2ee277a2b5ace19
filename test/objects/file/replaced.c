/* a file whose name a rename has given to another */
#include "file.h"

int main(void)
{
	char name[600];

	ht_init();
	strcpy(name, ht_path("f"));
	int old = make("f", O_RDWR, "old");
	close(make("g", O_RDWR, "new"));
	CHECK(rename(ht_path("g"), name) == 0);
	int new = open(name, O_RDWR);
	while (point()) {
		CHECK(!same_file(old, new));
		CHECK_EQ(stat_of(old).st_nlink, 0);
		reads(old, 0, "old");
		reads(new, 0, "new");
		link_is(new, name);
	}
	return done();
}
