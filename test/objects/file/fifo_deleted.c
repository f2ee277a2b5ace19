/* a deleted FIFO with content */
#include "file.h"

int main(void)
{
	char b[16];

	ht_init();
	CHECK(mkfifo(ht_path("fifo"), 0640) == 0);
	int both = open(ht_path("fifo"), O_RDWR), w = open(ht_path("fifo"), O_WRONLY | O_NONBLOCK);
	CHECK(both >= 0 && w >= 0 && unlink(ht_path("fifo")) == 0);
	CHECK_EQ(write(w, "queued", 6), 6);
	while (point()) {
		CHECK(same_file(both, w));
		CHECK(S_ISFIFO(stat_of(both).st_mode) && (stat_of(both).st_mode & 0777) == 0640);
		CHECK_EQ(stat_of(both).st_nlink, 0);
		CHECK_EQ(read(both, b, sizeof b), 6);
		CHECK(memcmp(b, "queued", 6) == 0);
		CHECK_EQ(write(w, "queued", 6), 6);
	}
	return done();
}
