/* Capabilities by system call: no library is needed. */
#ifndef CAPS_H
#define CAPS_H

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>

struct caps {
	uint64_t effective, permitted, inheritable, bounding, ambient;
};

static inline struct caps caps_get(void)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];
	struct caps c = { 0 };

	CHECK(syscall(SYS_capget, &h, d) == 0);
	c.effective = d[0].effective | (uint64_t)d[1].effective << 32;
	c.permitted = d[0].permitted | (uint64_t)d[1].permitted << 32;
	c.inheritable = d[0].inheritable | (uint64_t)d[1].inheritable << 32;
	for (int i = 0; i < 64; i++) {
		if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			c.bounding |= 1ULL << i;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1)
			c.ambient |= 1ULL << i;
	}
	return c;
}

static inline void caps_set(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2] = {
		{ effective, permitted, inheritable },
		{ effective >> 32, permitted >> 32, inheritable >> 32 },
	};

	CHECK(syscall(SYS_capset, &h, d) == 0);
}

static inline void caps_same(struct caps a, struct caps b)
{
	CHECK_EQ(a.effective, b.effective);
	CHECK_EQ(a.permitted, b.permitted);
	CHECK_EQ(a.inheritable, b.inheritable);
	CHECK_EQ(a.bounding, b.bounding);
	CHECK_EQ(a.ambient, b.ambient);
}

#endif
