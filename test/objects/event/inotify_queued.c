/* inotify: events nobody has read: the running program reads them, a restarted one reads IN_Q_OVERFLOW in their place */
#include "../object.h"
#include <sys/inotify.h>
#include <sys/ioctl.h>

static int fd;
static char path[300];

static void touch(void)
{
	int f = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);

	CHECK(f >= 0);
	close(f);
	CHECK_EQ(unlink(path), 0);
}

int main(void)
{
	char buf[4096] __attribute__((aligned(8)));
	struct inotify_event *e = (void *)buf;

	ht_init();
	snprintf(path, sizeof path, "%s/new", ht_dir);
	fd = inotify_init1(IN_NONBLOCK);
	CHECK_EQ(inotify_add_watch(fd, ht_dir, IN_CREATE | IN_DELETE), 1);
	pid_t child = getpid();
	touch();
	while (point()) {
		int queued, lost = 0, seen = 0;

		CHECK_EQ(getpid(), child);
		CHECK_EQ(ioctl(fd, FIONREAD, &queued), 0);
		CHECK(queued >= (int)sizeof *e);
		ssize_t n = read(fd, buf, sizeof buf);
		CHECK(n > 0);
		for (char *p = buf; p < buf + n; p += sizeof *e + ((struct inotify_event *)p)->len) {
			struct inotify_event *i = (void *)p;

			if (i->mask == IN_Q_OVERFLOW) {
				CHECK_EQ(i->wd, -1);
				lost++;
			} else if (strcmp(i->name, "new") == 0) {
				CHECK_EQ(i->wd, 1);
				seen |= i->mask;
			}
		}
		CHECK(lost == 1 || seen == (IN_CREATE | IN_DELETE));
		touch(); /* and it works as before */
		CHECK(read(fd, buf, sizeof buf) > 0);
		CHECK_EQ(e->wd, 1);
		CHECK_EQ(e->mask, IN_CREATE);
		touch();
	}
	return done();
}
