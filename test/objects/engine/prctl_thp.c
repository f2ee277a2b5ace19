/* PR_SET_THP_DISABLE, for the whole process and, where the kernel has it, all but advised memory */
#include "../object.h"
#include <sys/prctl.h>
#include <sys/wait.h>

int main(void)
{
	ht_init();
	int p[2], except = 0;
	CHECK(pipe(p) == 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		char c;
		except = prctl(PR_SET_THP_DISABLE, 1, 2 /* PR_THP_DISABLE_EXCEPT_ADVISED */, 0, 0) == 0;
		while (read(p[0], &c, 1) == 1 && c == 'c')
			CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), except ? 3 : 0);
		_exit(0);
	}
	CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	while (point()) {
		CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
		CHECK(write(p[1], "c", 1) == 1);
	}
	CHECK(write(p[1], "e", 1) == 1);
	int status;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	return done();
}
