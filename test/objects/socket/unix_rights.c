/* Descriptors in flight: of files, a pipe, an eventfd and a socket, some open
 * elsewhere and some not, with the bytes that they came with. */
#include "../socket.h"
#include <sys/eventfd.h>

static int stream[2], dgram[2], pipes[2], file;

static void fill(void)
{
	int lonely[2], fds[3];
	char path[200];

	say(stream[0], "abc");
	fds[0] = pipes[0];
	fds[1] = eventfd(7, 0);
	send_fds(stream[0], "def", 3, fds, 2);
	close(fds[1]);
	say(stream[0], "ghi");

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, lonely) == 0);
	say(lonely[0], "from the other end");
	strcpy(path, ht_path("file"));
	fds[0] = lonely[1];
	fds[1] = open(path, O_RDWR | O_CREAT, 0600);
	CHECK(fds[1] >= 0 && lseek(fds[1], 5, SEEK_SET) == 5);
	fds[2] = file;
	send_fds(dgram[0], "", 0, fds, 3);
	fds[0] = lonely[0];
	send_fds(dgram[0], "second", 6, fds, 1);
	close(lonely[0]);
	close(lonely[1]);
	close(fds[1]);
}

int main(void)
{
	char buf[100];
	int fds[16], more[16];
	uint64_t v;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0);
	CHECK(pipe(pipes) == 0 && write(pipes[1], "p", 1) == 1);
	file = open("/dev/null", O_RDONLY);
	fill();
	while (point()) {
		/* four bytes reach into those that came with descriptors */
		CHECK_EQ(recv_fds(stream[1], buf, 4, 4, fds), 2);
		CHECK(!memcmp(buf, "abcd", 4));
		hears(stream[1], "efghi");
		CHECK(read(fds[0], buf, 1) == 1 && *buf == 'p');
		CHECK(write(pipes[1], "p", 1) == 1);
		CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[0], pipes[0]) == 0);
		CHECK(read(fds[1], &v, sizeof v) == sizeof v && v == 7);
		close(fds[0]);
		close(fds[1]);

		CHECK_EQ(recv_fds(dgram[1], buf, sizeof buf, 0, fds), 3);
		hears(fds[0], "from the other end");
		CHECK_EQ(lseek(fds[1], 0, SEEK_CUR), 5);
		CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[2], file) == 0);
		CHECK_EQ(recv_fds(dgram[1], buf, sizeof buf, 6, more), 1);
		say(fds[0], "back");
		hears(more[0], "back");
		for (int i = 0; i < 3; i++)
			close(fds[i]);
		close(more[0]);
		fill();
	}
	return done();
}
