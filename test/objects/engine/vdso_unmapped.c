/* processes that have unmapped their vdso(7), as valgrind does: in one the first thread has ended */
#include "../object.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

static int in[2][2], out[2];

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
	char c;
	unsigned long end;

	do
		CHECK_EQ(vdso(&end), 0);
	while (write(out[1], "c", 1) == 1 && read(in[n][0], &c, 1) == 1);
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

int main(void)
{
	char c;

	ht_init();
	CHECK_EQ(pipe(out), 0);
	for (int n = 0; n < 2; n++) {
		CHECK_EQ(pipe(in[n]), 0);
		if (fork() == 0) {
			for (int k = 0; k <= n; k++)
				close(in[k][1]);
			n ? without_leader() : plain();
		}
		CHECK_EQ(read(out[0], &c, 1), 1);
	}
	while (point())
		for (int n = 0; n < 2; n++)
			CHECK(write(in[n][1], "c", 1) == 1 && read(out[0], &c, 1) == 1);
	for (int n = 0; n < 2; n++)
		close(in[n][1]);
	for (int n = 0; n < 2; n++) {
		int status;
		CHECK(wait(&status) > 0 && status == 0);
	}
	return done();
}
