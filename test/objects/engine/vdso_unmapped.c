/* processes that have unmapped their vdso(7), as valgrind does: in one the first thread has ended */
#include "../object.h"
#include "pair.h"
#include <pthread.h>
#include <sys/mman.h>

/* vdso returns the place of the vdso, 0 for none. */
static unsigned long vdso(unsigned long *end)
{
	char line[600];
	unsigned long start, found = 0;
	FILE *f = fopen("/proc/thread-self/maps", "re");

	CHECK(f);
	while (fgets(line, sizeof line, f))
		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &start, end) == 2)
			found = start;
	fclose(f);
	return found;
}

static void unmap(void)
{
	unsigned long end, start = vdso(&end);

	CHECK(start != 0);
	CHECK_EQ(munmap((void *)start, end - start), 0);
}

static void told(int n)
{
	unsigned long end;

	do
		CHECK_EQ(vdso(&end), 0);
	while (pair_told(n));
}

static void plain(void)
{
	unmap();
	told(0);
	_exit(0);
}

static void *rest(void *arg)
{
	told(1);
	_exit(0);
	return arg;
}

static void without_leader(void)
{
	pthread_t t;

	unmap();
	CHECK_EQ(pthread_create(&t, NULL, rest, NULL), 0);
	syscall(SYS_exit, 0); /* pthread_exit loads a library, and looks at the vdso as at one */
}

static void child(int n)
{
	n ? without_leader() : plain();
}

int main(void)
{
	ht_init();
	pair_start(child);
	while (point())
		pair_check();
	pair_end();
	return done();
}
