// Changes pages of its memory as it is told.
#include "t.h"

#define PAGES 16
#define HALF (PAGES / 2 * 4096)

static char ballast[64 << 20];

int main(int argc, char **argv)
{
	char line[256];
	(void)argc;
	char *area = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *half = area + HALF;
	CHECK(area != MAP_FAILED);
	madvise(area, PAGES * 4096, MADV_NOHUGEPAGE);
	for (int i = 0; i < PAGES; i++)
		memset(area + i * 4096, 'a' + i, 4096);
	memset(ballast, 1, sizeof ballast);
	dprintf(1, "area %lx\n", (long)area);
	ready();
	for (;;) {
		char how = *command(line);
		char *p = area + atoi(line + 1) * 4096;
		int status;
		switch (how) {
		case 'w':
			p[9]++;
			break;
		case 'd':
			CHECK(madvise(p, 4096, MADV_DONTNEED) == 0);
			break;
		case 'r': {
			int fd = open("/dev/zero", O_RDONLY);
			CHECK(fd == 3 && read(fd, p, 4096) == 4096 && close(fd) == 0);
			break;
		}
		case 'f': // a child writes to its copy
			if (fork() == 0) {
				memset(area, 'x', PAGES * 4096);
				_exit(0);
			}
			CHECK(wait(&status) > 0 && status == 0);
			break;
		case 'm': // away, and something new in its place
			CHECK(mremap(p, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, area + (1 << 30)) == area + (1 << 30));
			CHECK(mmap(p, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
			*p = 'n';
			break;
		case 's': // the second half goes away
			CHECK(mremap(half, HALF, HALF, MREMAP_MAYMOVE | MREMAP_FIXED, area + (1 << 29)) == area + (1 << 29));
			break;
		case 'j': // and comes back: one mapping again
			CHECK(mremap(area + (1 << 29), HALF, HALF, MREMAP_MAYMOVE | MREMAP_FIXED, half) == half);
			break;
		case 'u': // something new in the place of all, of which it writes a page
			CHECK(mmap(area, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == area);
			madvise(area, PAGES * 4096, MADV_NOHUGEPAGE);
			*p = 'n';
			break;
		case 'b': // much
			memset(ballast, 2, sizeof ballast);
			break;
		case 'e':
			execv("/proc/self/exe", argv);
			CHECK(0);
		}
		ready();
	}
}
