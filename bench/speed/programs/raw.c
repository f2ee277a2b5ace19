/* The raw limits: what a program can do with its own memory, without hiatus.
 *
 *   raw SIZE_MIB 4k|huge random|text|zero DIR
 *
 * prints one JSON object with seconds: fork (the call, as the caller sees it),
 * write1 and write2 (to one file; two processes, a file each), the same with
 * fsync, read2 (two threads pread(2) into fresh memory), map (a private mapping
 * of a file, each page touched), copy2 (two threads memcpy(3) to fresh memory).
 */
#include "raw.h"

static char *mem;
static size_t size;
static int huge;
static char path[2][4096];

static double fork_seconds(void)
{
	double t = now();
	pid_t pid = fork();
	if (pid < 0)
		DIE("fork");
	if (pid == 0)
		_exit(0);
	t = now() - t;
	waitpid(pid, NULL, 0);
	return t;
}

static void write_part(const char *to, size_t start, size_t end, int sync)
{
	int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		DIE(to);
	for (size_t at = start; at < end;) {
		ssize_t n = pwrite(fd, mem + at, end - at < MIB ? end - at : MIB, at - start);
		if (n <= 0)
			DIE("pwrite");
		at += n;
	}
	if (sync && fsync(fd) != 0)
		DIE("fsync");
	close(fd);
}

static double write_seconds(int files, int sync)
{
	for (int i = 0; i < files; i++)
		unlink(path[i]);
	double t = now();
	for (int i = 1; i < files; i++) {
		pid_t pid = fork();
		if (pid < 0)
			DIE("fork");
		if (pid == 0) {
			write_part(path[i], size / files * i, size / files * (i + 1), sync);
			_exit(0);
		}
	}
	write_part(path[0], 0, size / files, sync);
	for (int i = 1, status; i < files; i++)
		if (wait(&status) < 0 || status != 0)
			DIE("writer");
	return now() - t;
}

static char *fresh;

static void *read_part(void *arg)
{
	int i = (intptr_t)arg, fd = open(path[i], O_RDONLY);
	if (fd < 0)
		DIE(path[i]);
	for (size_t at = 0; at < size / 2;) {
		ssize_t n = pread(fd, fresh + size / 2 * i + at, size / 2 - at < 2 * MIB ? size / 2 - at : 2 * MIB, at);
		if (n <= 0)
			DIE("pread");
		at += n;
	}
	close(fd);
	return NULL;
}

static void *copy_part(void *arg)
{
	int i = (intptr_t)arg;
	memcpy(fresh + size / 2 * i, mem + size / 2 * i, size / 2);
	return NULL;
}

static double two_threads(void *(*work)(void *))
{
	pthread_t t[2];
	fresh = reserve(size, huge);
	double begun = now();
	for (intptr_t i = 0; i < 2; i++)
		if (pthread_create(&t[i], NULL, work, (void *)i) != 0)
			DIE("thread");
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	begun = now() - begun;
	munmap(fresh, size);
	return begun;
}

static double map_seconds(void)
{
	volatile char sum = 0;
	double t = now();
	for (int i = 0; i < 2; i++) {
		int fd = open(path[i], O_RDONLY);
		char *p = mmap(NULL, size / 2, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED)
			DIE("mmap");
		for (size_t at = 0; at < size / 2; at += 4096)
			sum += p[at];
		munmap(p, size / 2);
		close(fd);
	}
	return now() - t;
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: raw SIZE_MIB 4k|huge random|text|zero DIR\n");
		return 2;
	}
	size = strtoul(argv[1], NULL, 10) * MIB;
	huge = !strcmp(argv[2], "huge");
	mem = reserve(size, huge);
	fill(mem, size, argv[3]);
	for (int i = 0; i < 2; i++)
		snprintf(path[i], sizeof path[i], "%s/raw-%d", argv[4], i);
	fork_seconds(); /* the first one splits huge pages */
	printf("{\"fork\": %.6f", fork_seconds());
	printf(", \"write1\": %.6f", write_seconds(1, 0));
	printf(", \"write1_sync\": %.6f", write_seconds(1, 1));
	printf(", \"write2_sync\": %.6f", write_seconds(2, 1));
	printf(", \"write2\": %.6f", write_seconds(2, 0));
	printf(", \"read2\": %.6f", two_threads(read_part));
	printf(", \"copy2\": %.6f", two_threads(copy_part));
	printf(", \"map\": %.6f}\n", map_seconds());
	for (int i = 0; i < 2; i++)
		unlink(path[i]);
	return 0;
}
