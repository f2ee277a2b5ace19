/* a working directory whose name is not UTF-8
 * refused: it is not UTF-8
 */
#include "../object.h"
#include <sys/stat.h>

int main(void)
{
	char *path;

	ht_init();
	CHECK(asprintf(&path, "%s/dir\xff", ht_dir) > 0);
	CHECK(mkdir(path, 0700) == 0 || errno == EEXIST);
	CHECK_EQ(chdir(path), 0);
	while (point())
		;
	return done();
}
