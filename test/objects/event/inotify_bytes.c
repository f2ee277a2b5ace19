/* inotify: a watch of a file whose name is not UTF-8
 * refused: is not UTF-8
 */
#include "../object.h"
#include <sys/inotify.h>

int main(void)
{
	char c;

	ht_init();
	int file = open(ht_path("file\xff"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	CHECK(file >= 0 && fd >= 0 && close(file) == 0);
	CHECK_EQ(inotify_add_watch(fd, ht_path("file\xff"), IN_MODIFY), 1);
	while (point())
		CHECK(read(fd, &c, 1) == -1 && errno == EAGAIN);
	return done();
}
