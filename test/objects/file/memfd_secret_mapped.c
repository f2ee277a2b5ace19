/* memory of memfd_secret(2) that is mapped, and open nowhere
 * refused: the kernel shows secret memory to nobody
 */
#include "file.h"

int main(void)
{
	ht_init();
	int fd = syscall(SYS_memfd_secret, O_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
	char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED);
	close(fd);
	m[0] = 's';
	while (point())
		CHECK(m[0] == 's');
	return done();
}
