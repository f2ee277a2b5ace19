/* A shared mapping of a regular file: with the checkpoint, what was written to it is on the disk.
 * alone: what is written is durable with the commit, which does not come
 */
#include "ipc.h"
#include <sys/vfs.h>

enum { DURABLE_SIZE = 1 << 20, TMPFS = 0x01021994 };

/* dirty is how much of the mapping at p is to be written back still,
 * proc_pid_smaps(5), in KiB. */
static long dirty(const char *p)
{
	char line[512], start[32];
	int here = 0;
	long kb, sum = 0;
	FILE *f = fopen("/proc/self/smaps", "re");

	CHECK(f != NULL);
	snprintf(start, sizeof start, "%lx-", (long)p);
	while (fgets(line, sizeof line, f)) {
		if (line[0] >= 'A' && line[0] <= 'Z')
			sum += here && (sscanf(line, "Shared_Dirty: %ld", &kb) == 1 || sscanf(line, "Private_Dirty: %ld", &kb) == 1) ? kb : 0;
		else
			here = !strncmp(line, start, strlen(start));
	}
	CHECK_EQ(fclose(f), 0);
	return sum;
}

int main(void)
{
	struct statfs fs;

	ht_init();
	int fd = open(ht_path("written"), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(fstatfs(fd, &fs), 0);
	CHECK_EQ(ftruncate(fd, 2 * DURABLE_SIZE), 0);
	char *p = mmap(NULL, 2 * DURABLE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(close(fd), 0);
	/* written and then protected, as a second mapping */
	CHECK_EQ(mprotect(p + DURABLE_SIZE, DURABLE_SIZE, PROT_READ), 0);
	do {
		CHECK_EQ(mprotect(p + DURABLE_SIZE, DURABLE_SIZE, PROT_READ | PROT_WRITE), 0);
		for (int i = 0; i < 2 * DURABLE_SIZE; i += 4096)
			p[i]++;
		CHECK_EQ(mprotect(p + DURABLE_SIZE, DURABLE_SIZE, PROT_READ), 0);
		if (!point())
			return done();
		if (fs.f_type != TMPFS) { /* whose pages are never clean */
			CHECK_EQ(dirty(p), 0);
			CHECK_EQ(dirty(p + DURABLE_SIZE), 0);
		}
		for (int i = 0; i < 2 * DURABLE_SIZE; i += 4096)
			CHECK_EQ(p[i], p[0]);
	} while (1);
}
