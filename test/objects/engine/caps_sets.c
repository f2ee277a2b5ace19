/* permitted, effective, inheritable, bounding and ambient capabilities, chosen one by one
 * as: root
 */
#include "../object.h"
#include "caps.h"

#define BIT(n) (1ULL << (n))

int main(void)
{
	ht_init();
	for (int i = CAP_SYS_PACCT; i <= CAP_SYS_NICE; i++)
		CHECK(prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0);
	caps_set(BIT(CAP_NET_BIND_SERVICE), BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_CHOWN) | BIT(CAP_NET_RAW),
		 BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_NET_RAW));
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0) == 0);
	struct caps c = caps_get();
	CHECK(c.ambient == BIT(CAP_NET_RAW) && !(c.bounding & BIT(CAP_SYS_ADMIN)));
	while (point())
		caps_same(caps_get(), c);
	return done();
}
