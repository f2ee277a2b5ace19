/* inotify: watches with their descriptors, masks and flags, gaps between them */
#include "../object.h"
#include <sys/inotify.h>
#include <sys/stat.h>

static int fd;

static void touch(const char *name)
{
	int f = open(name, O_WRONLY | O_CREAT | O_APPEND, 0644);

	CHECK(f >= 0 && write(f, "x", 1) == 1);
	close(f);
}

/* expect reads one event, which is the only one. */
static void expect(int wd, uint32_t mask, const char *name)
{
	char buf[4096] __attribute__((aligned(8)));
	struct inotify_event *e = (void *)buf;

	CHECK_EQ(read(fd, buf, sizeof buf), (ssize_t)sizeof *e + e->len);
	CHECK_EQ(e->wd, wd);
	CHECK_EQ(e->mask, mask);
	CHECK(strcmp(e->len ? e->name : "", name) == 0);
}

static void nothing(void)
{
	char c[4096];

	CHECK_EQ(read(fd, c, sizeof c), -1);
	CHECK_EQ(errno, EAGAIN);
}

int main(void)
{
	int round = 0;

	ht_init();
	CHECK_EQ(chdir(ht_dir), 0);
	CHECK_EQ(mkdir("dir", 0755), 0);
	CHECK_EQ(mkdir("dir/deep", 0755), 0);
	touch("dir/deep/file");
	touch("once");
	touch("renamed");
	CHECK_EQ(symlink("dir", "link"), 0);
	fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	CHECK_EQ(inotify_add_watch(fd, "once", IN_ATTRIB), 1);
	CHECK_EQ(inotify_add_watch(fd, "dir", IN_CREATE | IN_ONLYDIR | IN_EXCL_UNLINK), 2);
	CHECK_EQ(inotify_rm_watch(fd, 1), 0);
	expect(1, IN_IGNORED, "");
	CHECK_EQ(inotify_add_watch(fd, "once", IN_MODIFY | IN_ONESHOT), 3);
	CHECK_EQ(inotify_add_watch(fd, "dir/deep/file", IN_MODIFY), 4);
	CHECK_EQ(inotify_add_watch(fd, "link", IN_ATTRIB | IN_DONT_FOLLOW), 5);
	CHECK_EQ(inotify_add_watch(fd, "renamed", IN_MODIFY), 6);
	CHECK_EQ(rename("renamed", "dir/deep/new name"), 0);
	while (point()) {
		char name[32];

		nothing();
		CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
		CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
		snprintf(name, sizeof name, "dir/%d", round);
		touch(name);
		expect(2, IN_CREATE, name + 4);
		touch("dir/deep/file");
		expect(4, IN_MODIFY, "");
		touch("dir/deep/new name");
		expect(6, IN_MODIFY, "");
		CHECK_EQ(fchownat(AT_FDCWD, "link", getuid(), -1, AT_SYMLINK_NOFOLLOW), 0);
		expect(5, IN_ATTRIB, "");
		CHECK_EQ(inotify_add_watch(fd, "dir", IN_CREATE | IN_MASK_ADD | IN_EXCL_UNLINK), 2); /* the same watch */
		/* A new one has a descriptor that no other ever had. */
		CHECK_EQ(inotify_add_watch(fd, name, IN_MODIFY), 7 + round);
		round++;
	}
	touch("once");
	char buf[4096] __attribute__((aligned(8)));
	CHECK_EQ(read(fd, buf, sizeof buf), (ssize_t)(2 * sizeof(struct inotify_event)));
	CHECK_EQ(((struct inotify_event *)buf)[0].mask, IN_MODIFY);
	CHECK_EQ(((struct inotify_event *)buf)[1].mask, IN_IGNORED);
	nothing();
	return done();
}
