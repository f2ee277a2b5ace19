/* deleted files whose mode lets nobody in, open for reading and writing: one
 * with content, and one without, whose mode tells that its program is alive
 */
#include "file.h"

int main(void)
{
	ht_init();
	int fd = make("f", O_RDWR, "content"), sign = make("sign", O_RDWR, "");
	CHECK(fchmod(fd, 0) == 0 && unlink(ht_path("f")) == 0);
	CHECK(fchmod(sign, 0) == 0 && unlink(ht_path("sign")) == 0);
	CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
	for (int alive = 0; point(); alive = !alive) {
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3);
		reads(fd, 0, "content");
		CHECK_EQ(stat_of(fd).st_mode & 07777, 0);
		CHECK_EQ(stat_of(sign).st_mode & 07777, alive);
		CHECK_EQ(stat_of(sign).st_size, 0);
		CHECK(fchmod(sign, !alive) == 0);
	}
	return done();
}
