/* a deleted file whose mode lets nobody in, open for reading and writing
 * as: root
 */
#include "file.h"

int main(void)
{
	ht_init();
	int fd = make("f", O_RDWR, "content");
	CHECK(fchmod(fd, 0) == 0 && unlink(ht_path("f")) == 0);
	while (point()) {
		reads(fd, 0, "content");
		CHECK_EQ(stat_of(fd).st_mode & 07777, 0);
	}
	return done();
}
