/* a connection that nobody has accepted yet, whose client has sent a job and ended
 * refused: a connection waits to be accepted whose client was closed
 */
#include "tcp.h"

#include <sys/wait.h>

int main(void)
{
	int status;
	char b[8];

	ht_init();
	int l = listen_at(v4(7041), 8), other = connect_to(names_of(l).own);
	pid_t child = fork();
	if (child == 0) {
		int client = connect_to(names_of(l).own);

		CHECK_EQ(send(client, "job", 3, 0), 3);
		close(client);
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	while (point())
		CHECK(events_of(l) & POLLIN);
	struct conn c = { .fd = { other, accept(l, NULL, NULL) } };
	talk(&c);
	int server = accept(l, NULL, NULL);
	CHECK(server >= 0);
	CHECK_EQ(recv(server, b, sizeof b, MSG_WAITALL), 3);
	CHECK(memcmp(b, "job", 3) == 0);
	return done();
}
