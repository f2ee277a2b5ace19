/* What the fixtures of files have in common. */
#ifndef OBJECT_FILE_H
#define OBJECT_FILE_H

#include "../object.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* make opens a new file of the test's directory with content. */
static inline int make(const char *name, int flags, const char *content)
{
	int fd = open(ht_path(name), flags | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(pwrite(fd, content, strlen(content), 0), strlen(content));
	return fd;
}

/* reads checks what stands at an offset, and that nothing is behind it. */
static inline void reads(int fd, off_t at, const char *want)
{
	char b[4096] = "";

	CHECK_EQ(pread(fd, b, sizeof b - 1, at), strlen(want));
	CHECK(strcmp(b, want) == 0);
}

/* link_is checks what /proc shows of a descriptor. */
static inline void link_is(int fd, const char *want)
{
	char name[64], got[4096] = "";

	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	CHECK(readlink(name, got, sizeof got - 1) > 0);
	if (strcmp(got, want) != 0)
		FAIL("fd %d is %s, want %s", fd, got, want);
}

static inline struct stat stat_of(int fd)
{
	struct stat st;

	CHECK(fstat(fd, &st) == 0);
	return st;
}

static inline int same_file(int a, int b)
{
	struct stat x = stat_of(a), y = stat_of(b);

	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A peer is a child that answers each byte of a pipe by running check. */
struct peer {
	pid_t pid;
	int ask, answer;
};

static inline struct peer fork_peer(void (*check)(void))
{
	int ask[2], answer[2];
	char c;

	CHECK(pipe2(ask, O_CLOEXEC) == 0 && pipe2(answer, O_CLOEXEC) == 0);
	struct peer p = { fork(), ask[1], answer[0] };
	CHECK(p.pid >= 0);
	if (p.pid == 0) {
		close(ask[1]);
		close(answer[0]);
		while (read(ask[0], &c, 1) == 1) {
			check();
			CHECK_EQ(write(answer[1], &c, 1), 1);
		}
		_exit(0);
	}
	close(ask[0]);
	close(answer[1]);
	return p;
}

static inline void peer_checks(struct peer *p)
{
	char c = 'x';

	CHECK_EQ(write(p->ask, &c, 1), 1);
	CHECK_EQ(read(p->answer, &c, 1), 1);
}

static inline void peer_ends(struct peer *p)
{
	int status;

	close(p->ask);
	CHECK_EQ(waitpid(p->pid, &status, 0), p->pid);
	CHECK_EQ(status, 0);
}

#endif
