/* Two children, each with state of its own, that look at it when asked to. */
#ifndef PAIR_H
#define PAIR_H

#include <sys/wait.h>

static struct { int in[2][2], out[2]; } pair;

/* pair_told answers for child n, and returns when that is asked again: 0 at the end. */
static inline int pair_told(int n)
{
	char c;

	return write(pair.out[1], "c", 1) == 1 && read(pair.in[n][0], &c, 1) == 1;
}

/* pair_start makes children 0 and 1, and returns when each has answered. */
static inline void pair_start(void (*child)(int n))
{
	char c;

	CHECK_EQ(pipe(pair.out), 0);
	for (int n = 0; n < 2; n++) {
		CHECK_EQ(pipe(pair.in[n]), 0);
		if (fork() == 0) {
			for (int k = 0; k <= n; k++)
				close(pair.in[k][1]);
			child(n);
			_exit(0);
		}
		CHECK_EQ(read(pair.out[0], &c, 1), 1);
	}
}

/* pair_check returns when each child has answered once more. */
static inline void pair_check(void)
{
	char c;

	for (int n = 0; n < 2; n++)
		CHECK(write(pair.in[n][1], "c", 1) == 1 && read(pair.out[0], &c, 1) == 1);
}

static inline void pair_end(void)
{
	int status;

	for (int n = 0; n < 2; n++)
		close(pair.in[n][1]);
	for (int n = 0; n < 2; n++)
		CHECK(wait(&status) > 0 && status == 0);
}

#endif
