/* a deleted directory, open twice, and a file that was in it */
#include "file.h"

int main(void)
{
	char gone[1100];

	ht_init();
	CHECK(mkdir(ht_path("d"), 0750) == 0 && mkdir(ht_path("d/e"), 0700) == 0);
	int a = open(ht_path("d/e"), O_RDONLY | O_DIRECTORY), b = open(ht_path("d/e"), O_RDONLY), f = make("d/e/f", O_RDWR, "content");
	CHECK(a >= 0 && b >= 0);
	snprintf(gone, sizeof gone, "%s (deleted)", ht_path("d/e/f"));
	CHECK(unlink(ht_path("d/e/f")) == 0 && rmdir(ht_path("d/e")) == 0 && rmdir(ht_path("d")) == 0);
	while (point()) {
		CHECK(same_file(a, b));
		CHECK(S_ISDIR(stat_of(a).st_mode) && stat_of(a).st_nlink == 0);
		CHECK(openat(a, "new", O_RDWR | O_CREAT, 0600) < 0 && errno == ENOENT);
		reads(f, 0, "content");
		link_is(f, gone);
		CHECK(access(ht_path("d"), F_OK) < 0);
	}
	return done();
}
