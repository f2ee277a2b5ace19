/* What the raw measurements and the subject share. */
#ifndef RAW_H
#define RAW_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1UL << 20)

#define DIE(what) do { fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, what, strerror(errno)); exit(1); } while (0)

static inline double seconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static inline double now(void) { return seconds(CLOCK_MONOTONIC); }

static inline uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* memory of n bytes in pages of the asked kind, not yet there */
static inline char *reserve(size_t n, int huge)
{
	size_t align = 2 * MIB;
	char *p = mmap(NULL, n + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		DIE("mmap");
	char *a = (char *)(((uintptr_t)p + align - 1) & ~(align - 1));
	if (a > p)
		munmap(p, a - p);
	munmap(a + n, p + align - a);
	if (madvise(a, n, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0 && errno != EINVAL)
		DIE("madvise");
	return a;
}

/* fill makes data of a kind: random does not shrink, text shrinks by about
 * three, of zero nine pages in ten are zeros. */
static inline void fill(char *p, size_t n, const char *data)
{
	static const char *words[] = {"the ", "state ", "of ", "a ", "process ", "is ", "kept ", "0x7f", "node", "\"id\": ",
		"value", ", ", "\n", "temperature ", "1.2345 ", "null "};
	uint64_t s = 88172645463325252ULL;
	for (size_t at = 0; at < n; at += 4096) {
		if (!strcmp(data, "zero") && at / 4096 % 10) {
			memset(p + at, 0, 4096);
		} else if (!strcmp(data, "text")) {
			for (size_t i = 0; i < 4096;) {
				uint64_t r = next_random(&s);
				char num[24];
				const char *w = words[r & 15];
				if ((r >> 4 & 7) == 0) {
					snprintf(num, sizeof num, "%lu ", (unsigned long)(r >> 40));
					w = num;
				}
				size_t k = strlen(w);
				if (k > 4096 - i)
					k = 4096 - i;
				memcpy(p + at + i, w, k);
				i += k;
			}
		} else {
			for (size_t i = 0; i < 4096; i += 8) {
				uint64_t r = next_random(&s);
				memcpy(p + at + i, &r, 8);
			}
		}
	}
}

#endif
