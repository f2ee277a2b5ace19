/* F_NOTIFY of a directory
 * refused: as F_NOTIFY of fcntl(2) sets it
 */
#include "file.h"

int main(void)
{
	ht_init();
	signal(SIGIO, SIG_IGN);
	int fd = open(ht_dir, O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0 && fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT) == 0);
	while (point())
		CHECK(S_ISDIR(stat_of(fd).st_mode));
	return done();
}
