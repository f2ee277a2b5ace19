/* the capabilities of a program that has not touched them: all five sets, and securebits */
#include "../object.h"
#include "caps.h"

int main(void)
{
	ht_init();
	struct caps c = caps_get();
	int bits = prctl(PR_GET_SECUREBITS);
	while (point()) {
		caps_same(caps_get(), c);
		CHECK_EQ(prctl(PR_GET_SECUREBITS), bits);
	}
	return done();
}
