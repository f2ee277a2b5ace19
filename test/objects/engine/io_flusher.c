/* PR_SET_IO_FLUSHER, where there is CAP_SYS_RESOURCE to set it
 * as: root
 */
#include "../object.h"
#include <sys/prctl.h>

int main(void)
{
	ht_init();
	int may = prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0;
	CHECK(may || errno == EPERM);
	while (point())
		if (may)
			CHECK_EQ(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0), 1);
	return done();
}
