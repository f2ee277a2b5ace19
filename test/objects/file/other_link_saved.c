/* files whose content is saved: one that lost the name by which it was opened, and one with a name that looks so
 * launch: --ckpt-open-files
 * restart: --ckpt-open-files
 */
#include "file.h"

static void is_named(int fd, const char *name)
{
	int again = open(ht_path(name), O_RDONLY | O_CLOEXEC);

	CHECK(again >= 0 && same_file(fd, again));
	CHECK_EQ(close(again), 0);
}

int main(void)
{
	char other[600];

	ht_init();
	int a = make("a", O_RDWR, "content"), c = make("c (deleted)", O_RDWR, "content");
	strcpy(other, ht_path("b"));
	CHECK(link(ht_path("a"), other) == 0 && unlink(ht_path("a")) == 0);
	while (point()) {
		is_named(a, "b");
		is_named(c, "c (deleted)");
		reads(a, 0, "content");
		reads(c, 0, "content");
		CHECK(access(ht_path("a"), F_OK) != 0 && access(ht_path("c"), F_OK) != 0);
	}
	return done();
}
