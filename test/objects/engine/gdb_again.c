/* gdb(1) that detaches for the checkpoint attaches again
 * needs: gdb
 */
#include "../object.h"
#include <sys/wait.h>

static volatile long rounds = 1, stop;
static FILE *to, *from;

/* ask gives gdb a command, and returns when it is carried out. */
static void ask(const char *command, const char *want)
{
	char line[1024];
	int seen = 0;

	fprintf(to, "%s\necho .done\\n\n", command);
	fflush(to);
	do {
		CHECK(fgets(line, sizeof line, from));
		seen |= strstr(line, want) != NULL;
	} while (!strstr(line, ".done"));
	if (!seen)
		FAIL("gdb does not say \"%s\"", want);
}

int main(void)
{
	int in[2], out[2], status;
	char command[100];

	ht_init();
	pid_t child = fork();
	if (child == 0) {
		while (!stop)
			ht_nap(1);
		_exit(7);
	}
	CHECK(pipe(in) == 0 && pipe(out) == 0);
	pid_t gdb = fork();
	if (gdb == 0) {
		CHECK(dup2(in[0], 0) == 0 && dup2(out[1], 1) == 1 && dup2(out[1], 2) == 2);
		close_range(3, ~0U, 0);
		execlp("gdb", "gdb", "-q", "-nx", "-nh", "-ex", "set confirm off", "-ex", "set debuginfod enabled off", NULL);
		_exit(1);
	}
	close(in[0]);
	close(out[1]);
	to = fdopen(in[1], "w");
	from = fdopen(out[0], "r");
	CHECK(to && from);
	ask("echo ready\\n", "ready");
	for (long n = 1; point(); n++) {
		snprintf(command, sizeof command, "attach %d", child);
		ask(command, "rocess");
		snprintf(command, sizeof command, "print *(long *)%p", (void *)&rounds);
		ask(command, "=");
		snprintf(command, sizeof command, "print *(long *)%p = %ld", (void *)&rounds, n + 1);
		ask(command, "=");
		snprintf(command, sizeof command, "print *(long *)%p == %ld", (void *)&rounds, n + 1);
		ask(command, "= 1");
		ask("detach", "rocess");
	}
	snprintf(command, sizeof command, "attach %d", child);
	ask(command, "rocess");
	snprintf(command, sizeof command, "print *(long *)%p = 1", (void *)&stop);
	ask(command, "= 1");
	ask("detach", "rocess");
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	fprintf(to, "quit\n");
	fclose(to);
	CHECK_EQ(waitpid(gdb, &status, 0), gdb);
	return done();
}
