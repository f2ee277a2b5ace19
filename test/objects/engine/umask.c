/* The mask of file modes, umask(2). */
#include "../object.h"
#include <sys/stat.h>

int main(void)
{
	ht_init();
	umask(0137);
	while (point()) {
		mode_t now = umask(0);

		CHECK_EQ(now, 0137);
		umask(now);
	}
	return done();
}
