/* a working directory to which its owner may not come any more
 * as: user
 * refused: this user may not come to it again: stat: permission denied
 */
#include "../object.h"
#include <sys/stat.h>

int main(void)
{
	ht_init();
	CHECK(mkdir(ht_path("d"), 0700) == 0 && mkdir(ht_path("d/cwd"), 0700) == 0);
	CHECK(chdir(ht_path("d/cwd")) == 0 && chmod(ht_path("d"), 0) == 0);
	while (point())
		;
	CHECK(chmod(ht_path("d"), 0700) == 0);
	return done();
}
