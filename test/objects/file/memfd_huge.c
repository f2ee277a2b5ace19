/* a memfd with huge pages, where the administrator has set some aside
 * as: root
 */
#include "file.h"

enum { HUGE = 2 << 20 };

int main(void)
{
	ht_init();
	int fd = memfd_create("huge", MFD_HUGETLB | MFD_ALLOW_SEALING);
	char *m = MAP_FAILED;
	if (fd >= 0 && ftruncate(fd, HUGE) == 0)
		m = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m != MAP_FAILED)
		memset(m, 7, 4096);
	if (fd >= 0)
		CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == 0);
	while (point()) {
		if (fd >= 0)
			CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_GROW);
		if (m == MAP_FAILED)
			continue;
		CHECK_EQ(stat_of(fd).st_size, HUGE);
		CHECK_EQ(stat_of(fd).st_blksize, HUGE);
		CHECK(m[0] == 7 && m[4095] == 7 && m[4096] == 0);
	}
	return done();
}
