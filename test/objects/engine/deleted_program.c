/* the program's file is deleted: it goes on, and so does what it started */
#include "../object.h"
#include <sys/mman.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
	char copy[2000], link[2000], want[2100], c;

	if (argc == 1) { /* go on in a copy that is deleted then */
		ht_init();
		snprintf(copy, sizeof copy, "%s", ht_path("program"));
		char cmd[4200];
		snprintf(cmd, sizeof cmd, "cp /proc/%d/exe %s", getpid(), copy);
		CHECK(system(cmd) == 0);
		CHECK(execl(copy, copy, "deleted", NULL) == 0);
	}
	(void)argv;
	ht_init();
	snprintf(copy, sizeof copy, "%s", ht_path("program"));
	CHECK(unlink(copy) == 0);
	snprintf(want, sizeof want, "%s (deleted)", copy);
	int p[2], q[2];
	CHECK(pipe(p) == 0 && pipe(q) == 0);
	pid_t child = fork();
	CHECK(child >= 0);
	do {
		int n = readlink("/proc/self/exe", link, sizeof link - 1);
		CHECK(n > 0);
		link[n] = 0;
		CHECK(strcmp(link, want) == 0);
		int fd = open("/proc/self/exe", O_RDONLY);
		CHECK(fd >= 0 && read(fd, link, 4) == 4 && memcmp(link, "\177ELF", 4) == 0);
		close(fd);
		if (child == 0)
			CHECK(write(q[1], "c", 1) == 1);
		else if (ht_steps)
			CHECK(write(p[1], "c", 1) == 1);
		if (child)
			CHECK(read(q[0], &c, 1) == 1);
	} while (child ? point() : read(p[0], &c, 1) == 1 && c == 'c');
	if (child == 0)
		_exit(0);
	CHECK(write(p[1], "e", 1) == 1);
	int status;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	return done();
}
