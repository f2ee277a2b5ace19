/* names of a process, a thread and a zombie that the kernel has cut within a character, PR_SET_NAME(2const) */
#include "../object.h"
#include "team.h"
#include <sys/prctl.h>
#include <sys/wait.h>

#define LONG "verwaltung-b\xc3\xbc\xc3\xb6" /* 16 bytes: the last is cut off */

static void set(int n)
{
	(void)n;
	CHECK_EQ(prctl(PR_SET_NAME, LONG), 0);
}

static void check(int n)
{
	char name[16];

	(void)n;
	CHECK_EQ(prctl(PR_GET_NAME, name), 0);
	CHECK_EQ(strlen(name), 15);
	CHECK(strncmp(name, LONG, 15) == 0);
}

static void check_zombie(pid_t pid)
{
	char path[64], line[128] = "", want[64];

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	snprintf(want, sizeof want, "%d (%.15s) Z", pid, LONG);
	FILE *f = fopen(path, "r");
	CHECK(f && fgets(line, sizeof line, f) && fclose(f) == 0);
	CHECK(strncmp(line, want, strlen(want)) == 0);
}

int main(void)
{
	siginfo_t info;

	ht_init();
	set(0);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	CHECK_EQ(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
	team_start(1, set, check);
	while (point()) {
		check(0);
		check_zombie(pid);
		team_check();
	}
	team_end();
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	return done();
}
