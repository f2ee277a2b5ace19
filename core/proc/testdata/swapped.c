// Shared memory of which every 16th page is there, and all that was swapped out, if there is swap.
#include "t.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

enum { page = 4096, pages = 4096, every = 16 };

int main(void)
{
	unsigned char *at = mmap(0, pages * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	for (long i = 0; i < pages; i += every)
		memset(at + i * page, 1 + i / every % 255, page);
	CHECK(madvise(at, pages * page, MADV_PAGEOUT) == 0);
	printf("%p\n", (void *)at);
	fflush(stdout);
	char line[256];
	for (;;) {
		command(line);
		for (long i = 0; i < pages; i += every)
			CHECK(at[i * page + 7] == 1 + i / every % 255);
		ready();
	}
}
