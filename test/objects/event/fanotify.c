/* fanotify: a group that reports files by handle, which needs no privilege
 * refused: fanotify(7)
 */
#include "../object.h"
#include <sys/fanotify.h>
#include <sys/stat.h>

int main(void)
{
	char buf[4096];

	ht_init();
	int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK, 0);
	CHECK(fd >= 0);
	CHECK_EQ(fanotify_mark(fd, FAN_MARK_ADD, FAN_ATTRIB | FAN_ONDIR, AT_FDCWD, ht_dir), 0);
	while (point()) {
		CHECK_EQ(chmod(ht_dir, 0755), 0);
		CHECK(read(fd, buf, sizeof buf) > 0);
	}
	return done();
}
