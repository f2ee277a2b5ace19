/* the stack of the program, and one of its own with MAP_GROWSDOWN, still grow */
#include "../object.h"
#include <sys/mman.h>
#include "smaps.h"

static long deep(int n)
{
	volatile char frame[4096];

	memset((char *)frame, n, sizeof frame);
	return n == 0 ? frame[100] : deep(n - 1) + frame[4000];
}

int main(void)
{
	ht_init();
	char *room = mmap(NULL, 64L << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(room != MAP_FAILED && munmap(room, 64L << 20) == 0);
	char *top = room + (64L << 20) - 2 * 4096, *low = top;
	CHECK(mmap(top, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0) == top);
	int depth = 100;
	while (point()) {
		depth += 300;
		CHECK(deep(depth) != 1);
		for (int i = 0; i < 10; i++) {
			low -= 4096;
			*low = depth;
		}
		CHECK(smaps_flag(top, "gd") && *low == (char)depth);
	}
	return done();
}
