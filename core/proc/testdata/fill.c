// Private anonymous memory that a restart must fill, of every protection, and
// what it holds. The orders: "check".
#include "t.h"

static char *areas[6];
static const size_t sizes[6] = {24 << 20, 1 << 20, 1 << 20, 1 << 20, 8 << 20, 4096};
static const int prots[6] = {PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE};
enum { HUGE_AREA = 4 };

// word is what stands at an offset: every third page is left untouched.
static uint64_t word(int area, size_t off)
{
	uint64_t x = (off + 1) * 0x9e3779b97f4a7c15u + area;

	return off / 4096 % 3 == 2 ? 0 : x ^ x >> 29;
}

// protect gives an area its protection: the first becomes three mappings side by side.
static void protect(int area)
{
	CHECK(mprotect(areas[area], sizes[area], prots[area]) == 0);
	if (area == 0)
		CHECK(mprotect(areas[0] + 4096, 1 << 20, PROT_READ) == 0);
}

static void check(int area)
{
	if (!(prots[area] & PROT_READ))
		CHECK(mprotect(areas[area], sizes[area], PROT_READ) == 0);
	for (size_t off = 0; off < sizes[area]; off += 8)
		CHECK(*(uint64_t *)(areas[area] + off) == word(area, off));
	protect(area);
}

int main(void)
{
	char line[256];

	for (int i = 0; i < 6; i++) {
		char *p = mmap(0, sizes[i] + (4 << 20), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		CHECK(p != MAP_FAILED);
		areas[i] = (char *)(((uintptr_t)p + (2 << 20)) & ~((2ul << 20) - 1));
		CHECK(mprotect(areas[i], sizes[i], PROT_READ | PROT_WRITE) == 0);
		if (i == HUGE_AREA)
			CHECK(madvise(areas[i], sizes[i], MADV_HUGEPAGE) == 0 || errno == EINVAL);
		for (size_t off = 0; off < sizes[i]; off += 8)
			if (word(i, off))
				*(uint64_t *)(areas[i] + off) = word(i, off);
		protect(i);
	}
	dprintf(1, "huge %lx\n", (long)areas[HUGE_AREA]);
	for (;;) {
		ready();
		command(line);
		for (int i = 0; i < 6; i++)
			check(i);
	}
}
