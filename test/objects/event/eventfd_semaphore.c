/* eventfd: EFD_SEMAPHORE, shared by a process and its child */
#include "../object.h"
#include <sys/eventfd.h>
#include <sys/wait.h>

int main(void)
{
	uint64_t n, two = 2;
	int status;

	ht_init();
	int items = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK), work = eventfd(0, EFD_SEMAPHORE), answers = eventfd(0, 0);
	pid_t child = fork();
	CHECK(child >= 0);
	while (child == 0) { /* takes one item for each piece of work, 0 ends it */
		CHECK_EQ(read(work, &n, sizeof n), sizeof n);
		CHECK_EQ(n, 1);
		if (read(items, &n, sizeof n) < 0)
			_exit(errno == EAGAIN ? 5 : 1);
		CHECK_EQ(n, 1);
		CHECK_EQ(write(answers, &n, sizeof n), sizeof n);
	}
	while (point()) {
		CHECK_EQ(write(items, &two, sizeof two), sizeof two);
		CHECK_EQ(write(work, &two, sizeof two), sizeof two);
		for (uint64_t sum = 0; sum < 2; sum += n)
			CHECK_EQ(read(answers, &n, sizeof n), sizeof n);
	}
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(read(items, &n, sizeof n), sizeof n);
		CHECK_EQ(n, 1);
	}
	CHECK_EQ(read(items, &n, sizeof n), -1);
	n = 1;
	CHECK_EQ(write(work, &n, sizeof n), sizeof n);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
	return done();
}
