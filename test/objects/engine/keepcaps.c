/* PR_SET_KEEPCAPS, which an ordinary user may set too */
#include "../object.h"
#include <sys/prctl.h>

int main(void)
{
	ht_init();
	CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0);
	while (point())
		CHECK_EQ(prctl(PR_GET_KEEPCAPS), 1);
	return done();
}
