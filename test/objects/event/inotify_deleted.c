/* inotify: a watch of a file that is deleted but open, and of a directory with everything listened to */
#include "../object.h"
#include <sys/inotify.h>
#include <sys/stat.h>

int main(void)
{
	char buf[4096] __attribute__((aligned(8)));
	struct inotify_event *e = (void *)buf;

	ht_init();
	CHECK_EQ(mkdir(ht_path("all"), 0755), 0);
	int fd = inotify_init1(IN_NONBLOCK), all = inotify_init1(IN_NONBLOCK);
	int file = open(ht_path("gone"), O_RDWR | O_CREAT, 0600);
	CHECK(file >= 0 && write(file, "content", 7) == 7);
	CHECK_EQ(inotify_add_watch(fd, ht_path("gone"), IN_MODIFY | IN_ATTRIB), 1);
	CHECK_EQ(unlink(ht_path("gone")), 0);
	CHECK_EQ(read(fd, buf, sizeof buf), sizeof *e); /* of the number of links */
	CHECK_EQ(inotify_add_watch(all, ht_path("all"), IN_ALL_EVENTS), 1);
	while (point()) {
		CHECK_EQ(read(all, buf, sizeof buf), -1);
		CHECK_EQ(errno, EAGAIN);
		CHECK_EQ(read(fd, buf, sizeof buf), -1);
		CHECK_EQ(errno, EAGAIN);
		CHECK_EQ(write(file, "x", 1), 1);
		CHECK_EQ(read(fd, buf, sizeof buf), sizeof *e);
		CHECK_EQ(e->wd, 1);
		CHECK_EQ(e->mask, IN_MODIFY);
		CHECK_EQ(chmod(ht_path("all"), 0755), 0);
		CHECK_EQ(read(all, buf, sizeof buf), sizeof *e);
		CHECK_EQ(e->mask, IN_ATTRIB | IN_ISDIR);
	}
	return done();
}
