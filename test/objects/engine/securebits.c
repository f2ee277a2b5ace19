/* securebits with their locks: nothing is special about user 0 any more
 * as: root
 */
#include "../object.h"
#include "caps.h"

int main(void)
{
	const int bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_CAP_AMBIENT_RAISE |
			 SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

	ht_init();
	CHECK(prctl(PR_SET_SECUREBITS, bits) == 0);
	struct caps c = caps_get();
	while (point()) {
		CHECK_EQ(prctl(PR_GET_SECUREBITS), bits);
		caps_same(caps_get(), c);
		CHECK(prctl(PR_SET_SECUREBITS, bits & ~SECBIT_NOROOT) == -1 && errno == EPERM);
	}
	return done();
}
