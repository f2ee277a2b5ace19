// Memory of every kind. "list" tells where, "check" proves the content and that all of it
// still works as it was mapped.
#include "t.h"
#include <sys/stat.h>

enum { page = 4096, pages = 64 };

static unsigned char *sparse, *none, *readonly, *grows, *private_file, *shared_file, *readonly_file, *heap, *pair, *hole;
static unsigned char *advised[8];
static pid_t child;
static int to_child[2], from_child[2];

static unsigned char pattern(int i, long off) { return 1 + (i * 37 + off * 11 + off / page) % 251; }

static void fill(unsigned char *at, int i, long len)
{
	for (long off = 0; off < len; off++)
		at[off] = pattern(i, off);
}

static int holds(unsigned char *at, int i, long len)
{
	for (long off = 0; off < len; off++)
		if (at[off] != pattern(i, off))
			return 0;
	return 1;
}

static int zeros(unsigned char *at, long len)
{
	for (long off = 0; off < len; off++)
		if (at[off])
			return 0;
	return 1;
}

static unsigned char *map(size_t len, int prot, int flags, int fd, off_t off)
{
	unsigned char *at = mmap(0, len, prot, flags, fd, off);
	CHECK(at != MAP_FAILED);
	return at;
}

// alone is anonymous memory that merges with no other: between pages that cannot be touched.
static unsigned char *alone(size_t len)
{
	unsigned char *at = map(len + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(mprotect(at + page, len, PROT_READ | PROT_WRITE) == 0);
	return at + page;
}

static void make(const char *file)
{
	sparse = alone(pages * page);
	for (int i = 0; i < 3; i++)
		fill(sparse + (long[]){0, 20, 63}[i] * page, i, page);
	memset(sparse + 30 * page, 0, page); // there, and zero
	CHECK(((volatile unsigned char *)sparse)[40 * page] == 0); // the kernel's zero page
	none = alone(2 * page);
	fill(none, 3, 2 * page);
	CHECK(mprotect(none, 2 * page, PROT_NONE) == 0);
	readonly = alone(2 * page);
	fill(readonly, 4, 2 * page);
	CHECK(mprotect(readonly, 2 * page, PROT_READ) == 0);

	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0644);
	CHECK(fd >= 0);
	unsigned char b[8 * page];
	fill(b, 6, sizeof b);
	CHECK(write(fd, b, sizeof b) == sizeof b);
	private_file = map(8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	memset(private_file + 2 * page, 0, page);
	fill(private_file + 5 * page, 7, page);
	CHECK(private_file[7 * page] == pattern(6, 7 * page)); // only read
	readonly_file = map(4 * page, PROT_READ, MAP_SHARED, fd, 4 * page);
	close(fd);
	char other[256];
	snprintf(other, sizeof other, "%s.shared", file);
	fd = open(other, O_RDWR | O_CREAT | O_TRUNC, 0644);
	CHECK(fd >= 0 && write(fd, b, sizeof b) == sizeof b);
	shared_file = map(8 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	shared_file[page] = 99;
	close(fd);
	heap = sbrk(3 * page);
	CHECK(heap != (void *)-1);
	fill(heap, 8, 3 * page);
	const int advice[] = {MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DONTFORK, MADV_WIPEONFORK, MADV_RANDOM, MADV_SEQUENTIAL};
	for (int i = 0; i < 7; i++) {
		advised[i] = alone(3 * page);
		fill(advised[i], 20 + i, page);
		if (madvise(advised[i], 3 * page, advice[i]) != 0)
			CHECK(errno == EINVAL); // a kernel without huge pages
	}
	advised[7] = alone(3 * page);
	fill(advised[7], 27, page);
	CHECK(mlock(advised[7], page) == 0);
	hole = alone(3 * page);
	fill(hole, 9, 3 * page);
	CHECK(munmap(hole + page, page) == 0);
}

// make_stack maps what grows. It is the last to be mapped: the kernel may place another
// mapping as near below as the gap that it keeps below stacks (stack_guard_gap, mmap(2)),
// and then lets it grow no more.
static void make_stack(void)
{
	unsigned char *room = map(1024 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(munmap(room, 1024 * page) == 0);
	grows = mmap(room + 1000 * page, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(grows == room + 1000 * page);
	fill(grows, 5, 2 * page);
}

// sharer is the child: it adds 1 to each byte that it is told to.
static void sharer(void)
{
	int off;
	close(to_child[1]);
	while (read(to_child[0], &off, sizeof off) == sizeof off) {
		pair[off]++;
		CHECK(write(from_child[1], &off, sizeof off) == sizeof off);
	}
	_exit(0);
}

static void check_shared(void)
{
	static int round;
	int off = 3 * page + ++round, got;
	unsigned char before = pair[off];
	CHECK(holds(pair + page, 10, page) && zeros(pair + 2 * page, page));
	CHECK(write(to_child[1], &off, sizeof off) == sizeof off);
	CHECK(read(from_child[0], &got, sizeof got) == sizeof got && got == off);
	CHECK(pair[off] == before + 1);
}

static void check_content(void)
{
	for (int i = 0; i < 3; i++)
		CHECK(holds(sparse + (long[]){0, 20, 63}[i] * page, i, page));
	CHECK(zeros(sparse + page, 19 * page) && zeros(sparse + 21 * page, 42 * page));
	CHECK(mprotect(none, 2 * page, PROT_READ) == 0);
	CHECK(holds(none, 3, 2 * page));
	CHECK(mprotect(none, 2 * page, PROT_NONE) == 0);
	CHECK(holds(readonly, 4, 2 * page));
	CHECK(holds(heap, 8, 3 * page));
	for (int i = 0; i < 8; i++)
		CHECK(holds(advised[i], 20 + i, page) && zeros(advised[i] + page, 2 * page));
	CHECK(holds(hole, 9, page) && hole[2 * page] == pattern(9, 2 * page));
}

static void check_files(const char *file)
{
	unsigned char want[8 * page], is[page];
	fill(want, 6, sizeof want);
	CHECK(memcmp(private_file, want, 2 * page) == 0 && zeros(private_file + 2 * page, page));
	CHECK(memcmp(private_file + 3 * page, want + 3 * page, 2 * page) == 0 && holds(private_file + 5 * page, 7, page));
	CHECK(memcmp(private_file + 6 * page, want + 6 * page, 2 * page) == 0);
	CHECK(memcmp(readonly_file, want + 4 * page, 4 * page) == 0);
	CHECK(shared_file[page] == 99);
	char other[256];
	snprintf(other, sizeof other, "%s.shared", file);
	shared_file[2 * page]++;
	int fd = open(other, O_RDONLY);
	CHECK(fd >= 0 && pread(fd, is, page, 2 * page) == page);
	CHECK(is[0] == shared_file[2 * page]); // the file itself
	fd = (close(fd), open(file, O_RDONLY));
	CHECK(fd >= 0 && pread(fd, is, page, 5 * page) == page && memcmp(is, want + 5 * page, page) == 0); // not written to
	close(fd);
}

int main(int argc, char **argv)
{
	char line[256];
	CHECK(argc > 1);
	make(argv[1]);
	pair = map(4 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fill(pair + page, 10, page);
	make_stack();
	CHECK(pipe(to_child) == 0 && pipe(from_child) == 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0)
		sharer();
	check_shared();
	check_content();
	check_files(argv[1]);
	for (;;) {
		ready();
		command(line);
		if (!strcmp(line, "list")) {
			dprintf(1, "sparse %lx\nnone %lx\nreadonly %lx\ngrows %lx\n", (long)sparse, (long)none, (long)readonly, (long)grows);
			dprintf(1, "private %lx\nshared %lx\nreadonly_file %lx\npair %lx\n", (long)private_file, (long)shared_file, (long)readonly_file, (long)pair);
			dprintf(1, "heap %lx\nhole %lx\n", (long)heap, (long)hole);
			for (int i = 0; i < 8; i++)
				dprintf(1, "%s %lx\n", (const char *[]){"hg", "nh", "dd", "dc", "wf", "rr", "sr", "lo"}[i], (long)advised[i]);
		}
		if (!strncmp(line, "check", 5)) {
			check_shared();
			check_content();
			check_files(argv[1]);
			CHECK(holds(grows, 5, 2 * page));
		}
		if (!strcmp(line, "grow")) {
			for (int i = 1; i <= 20; i++)
				grows[-i * page] = 1;
			CHECK(holds(grows, 5, 2 * page));
			CHECK(syscall(SYS_brk, 0) == (long)sbrk(0));
			memset(sbrk(page), 1, page);
		}
	}
}
