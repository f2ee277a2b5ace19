/* a process in a chroot(2), whose working directory is inside
 * as: root
 */
#include "file.h"

static void check(void)
{
	char cwd[64];
	struct stat st;

	CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/sub") == 0);
	CHECK(access("/inside", F_OK) == 0 && access("/proc", F_OK) < 0);
	CHECK(stat("/..", &st) == 0 && access("/../inside", F_OK) == 0);
	int fd = open("/inside", O_RDONLY);
	reads(fd, 0, "content");
	close(fd);
}

static int kept;

static void enter_and_check(void)
{
	static int entered;

	if (!entered++)
		CHECK(chroot(ht_path("root")) == 0 && chdir("/sub") == 0);
	check();
	reads(kept, 0, "content");
}

int main(void)
{
	ht_init();
	CHECK(mkdir(ht_path("root"), 0755) == 0 && mkdir(ht_path("root/sub"), 0755) == 0);
	kept = make("root/inside", O_RDWR, "content");
	struct peer p = fork_peer(enter_and_check);
	peer_checks(&p);
	while (point())
		peer_checks(&p);
	peer_ends(&p);
	return done();
}
