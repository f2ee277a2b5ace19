/* epoll: the parameters of busy polling, ioctl_eventpoll(2), where the kernel has them */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/ioctl.h>

struct params { uint32_t usecs; uint16_t budget; uint8_t prefer, pad; };
#define SET _IOW(0x8A, 0x01, struct params)
#define GET _IOR(0x8A, 0x02, struct params)

int main(void)
{
	struct params p = { 64, 16, 1, 0 }, got;

	ht_init();
	int ep = epoll_create1(0);
	int have = ioctl(ep, SET, &p) == 0;
	if (!have)
		CHECK(errno == ENOTTY || errno == EINVAL || errno == EOPNOTSUPP);
	while (point()) {
		if (!have)
			continue;
		CHECK_EQ(ioctl(ep, GET, &got), 0);
		CHECK(memcmp(&p, &got, sizeof p) == 0);
	}
	return done();
}
