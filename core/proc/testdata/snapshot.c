// Two processes whose memory is to be saved as it was at one moment: "next" writes all of it
// anew, "check" proves that all of it is of one turn, "look" that nothing but the program's own
// shows: no child, no signal, no descriptor. "advise", "map" and "lock" change its mappings. With "reaper" it adopts orphans.
#include "t.h"
#include <dirent.h>
#include <sys/stat.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

enum { page = 4096, large = 20 << 20, small = 64 * page, parts = 8 };

static struct { unsigned char *at; long len; } part[parts];
static volatile unsigned char turn = 1;
static volatile sig_atomic_t signals;
static pid_t child;
static int to_child[2], from_child[2], open_files, cut_file;

static void on_child(int sig) { signals++; }

static unsigned char *map(long len, int flags, int fd)
{
	unsigned char *at = mmap(0, len, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(at != MAP_FAILED);
	return at;
}

static int file(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, small) == 0);
	return fd;
}

// shared is the part that both processes have, and cut the one whose file is cut at each turn.
enum { shared = 1, cut = 7 };

static void make(const char *name)
{
	part[0].at = map(part[0].len = large + 2 * page, MAP_PRIVATE | MAP_ANONYMOUS, -1) + page;
	part[0].len = large; // alone between pages that cannot be touched
	CHECK(mprotect(part[0].at - page, page, PROT_NONE) == 0 && mprotect(part[0].at + large, page, PROT_NONE) == 0);
	part[shared].at = map(part[shared].len = small, MAP_SHARED | MAP_ANONYMOUS, -1);
	part[2].at = map(part[2].len = 2 * page, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	CHECK(madvise(part[2].at, part[2].len, MADV_WIPEONFORK) == 0);
	part[3].at = map(part[3].len = 3 * page, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	part[4].at = map(part[4].len = small, MAP_PRIVATE | MAP_ANONYMOUS, -1); // PROT_NONE between turns
	int fd = file(name);
	part[5].at = map(part[5].len = small, MAP_PRIVATE, fd);
	close(fd);
	char gone[256];
	snprintf(gone, sizeof gone, "%s.gone", name);
	fd = file(gone);
	part[6].at = map(part[6].len = small, MAP_PRIVATE, fd);
	CHECK(unlink(gone) == 0);
	close(fd);
	snprintf(gone, sizeof gone, "%s.cut", name);
	cut_file = file(gone);
	part[cut].at = map(part[cut].len = small, MAP_PRIVATE, cut_file);
}

static void next(int with_shared)
{
	turn++;
	for (int i = 0; i < parts; i++) {
		if (i == shared && !with_shared)
			continue;
		if (i == 4)
			CHECK(mprotect(part[i].at, part[i].len, PROT_READ | PROT_WRITE) == 0);
		if (i == cut && with_shared) // which takes the pages of both
			CHECK(ftruncate(cut_file, 0) == 0 && ftruncate(cut_file, small) == 0);
		for (long off = 0; off < part[i].len; off += 512)
			part[i].at[off] = turn;
		if (i == 4)
			CHECK(mprotect(part[i].at, part[i].len, PROT_NONE) == 0);
	}
}

static void check(void)
{
	CHECK(mprotect(part[4].at, part[4].len, PROT_READ) == 0);
	for (int i = 0; i < parts; i++)
		for (long off = 0; off < part[i].len; off += 512)
			if (part[i].at[off] != turn) {
				dprintf(1, "FAIL pid %d part %d at %ld: turn %d, want %d\n", getpid(), i, off, part[i].at[off], turn);
				_exit(1);
			}
	CHECK(mprotect(part[4].at, part[4].len, PROT_NONE) == 0);
}

static int count_files(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");
	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void look(void)
{
	int status;
	CHECK(signals == 0);
	CHECK(count_files() == open_files);
	CHECK(waitpid(-1, &status, WNOHANG | __WALL) == 0); // the child is there, and has not ended
	char path[64], list[256] = "", want[32];
	snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
	int fd = open(path, O_RDONLY);
	CHECK(fd >= 0 && read(fd, list, sizeof list - 1) >= 0);
	close(fd);
	snprintf(want, sizeof want, "%d ", child);
	CHECK(strcmp(list, want) == 0);
}

static void serve(void)
{
	for (char c;;) {
		if (read(to_child[0], &c, 1) != 1)
			_exit(0);
		if (c == 'n')
			next(0);
		else
			check();
		CHECK(write(from_child[1], &c, 1) == 1);
	}
}

static void tell(char c)
{
	CHECK(write(to_child[1], &c, 1) == 1 && read(from_child[0], &c, 1) == 1);
}

int main(int argc, char **argv)
{
	CHECK(argc >= 2);
	if (argc > 2 && !strcmp(argv[2], "reaper"))
		CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	CHECK(signal(SIGCHLD, on_child) != SIG_ERR);
	CHECK(pipe(to_child) == 0 && pipe(from_child) == 0);
	make(argv[1]);
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		close(to_child[1]);
		serve();
	}
	// What a child does not have anyway is set when there is one.
	CHECK(madvise(part[3].at, part[3].len, MADV_DONTFORK) == 0);
	next(1);
	tell('n');
	open_files = count_files();
	ready();
	for (char line[256];;) {
		command(line);
		if (!strcmp(line, "next")) {
			next(1);
			tell('n');
		} else if (!strcmp(line, "check")) {
			check();
			tell('c');
		} else if (!strcmp(line, "look")) {
			look();
		} else if (!strcmp(line, "advise")) {
			CHECK(madvise(part[0].at, part[0].len, MADV_DONTDUMP) == 0);
		} else if (!strcmp(line, "map")) {
			map(page, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		} else if (!strcmp(line, "lock")) {
			CHECK(mlock(part[0].at, page) == 0);
		} else {
			CHECK(!"unknown command");
		}
		ready();
	}
}
