/* Attachments partly unmapped, moved and protected; shmdt takes what is left of one. */
#include "ipc.h"

static int mapped(const void *p)
{
	unsigned char v;

	return mincore((void *)p, 4096, &v) == 0;
}

int main(void)
{
	enum { PAGE = 4096, PAGES = 8 };

	ht_init();
	int id = shmget(ipc_key(0), PAGES * PAGE, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	char *whole = shmat(id, NULL, 0);
	CHECK(whole != (void *)-1);
	for (int i = 0; i < PAGES; i++)
		whole[i * PAGE] = 'a' + i;
	/* hole: pages 2 and 3 gone, another mapping in their place */
	char *hole = shmat(id, NULL, 0);
	CHECK(hole != (void *)-1);
	CHECK_EQ(munmap(hole + 2 * PAGE, 2 * PAGE), 0);
	char *other = mmap(hole + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(other == hole + 2 * PAGE);
	other[1] = 'x';
	CHECK_EQ(mprotect(hole + 5 * PAGE, PAGE, PROT_READ), 0);
	CHECK_EQ(mprotect(hole + 6 * PAGE, PAGE, PROT_NONE), 0);
	/* tail: only the last page, of a read-only attachment */
	char *tail = shmat(id, NULL, SHM_RDONLY);
	CHECK(tail != (void *)-1);
	/* moved: page 1 at another address */
	char *room = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *moved = shmat(id, NULL, 0);
	CHECK(room != MAP_FAILED && moved != (void *)-1);
	CHECK(mremap(moved + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + PAGE) == room + PAGE);
	CHECK_EQ(munmap(tail, 7 * PAGE), 0); /* nothing that was mapped since is there */
	CHECK_EQ(shmdt(whole), 0); /* page 3 is in `moved' only */
	int n = 0;
	while (point()) {
		CHECK_EQ(hole[0], 'a');
		CHECK_EQ(hole[PAGE], 'b');
		CHECK_EQ(other[1], 'x');
		CHECK_EQ(moved[3 * PAGE], 'd');
		CHECK_EQ(hole[4 * PAGE], 'e');
		CHECK_EQ(hole[5 * PAGE], 'f');
		CHECK(!mapped(hole + 3 * PAGE) && mapped(hole + 6 * PAGE) && !mapped(tail) && !mapped(moved + PAGE));
		CHECK_EQ(tail[7 * PAGE], 'h');
		CHECK_EQ(room[PAGE], 'b');
		hole[PAGE + 1] = ++n;
		CHECK_EQ(room[PAGE + 1], n);
		CHECK_EQ(moved[7 * PAGE], 'h');
		/* not writable, and cannot be */
		CHECK(mprotect(tail + 7 * PAGE, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES);
		/* protected, and can be changed: a system call tells without a signal */
		int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		CHECK(read(fd, hole + 5 * PAGE + 8, 1) < 0 && errno == EFAULT);
		CHECK(read(fd, hole + 6 * PAGE + 8, 1) < 0 && errno == EFAULT);
		CHECK_EQ(close(fd), 0);
	}
	CHECK_EQ(mprotect(hole + 6 * PAGE, PAGE, PROT_READ), 0);
	CHECK_EQ(hole[6 * PAGE], 'g');
	CHECK_EQ(shmdt(hole), 0);
	CHECK(!mapped(hole) && !mapped(hole + 4 * PAGE) && !mapped(hole + 7 * PAGE) && mapped(other));
	CHECK_EQ(shmctl(id, IPC_RMID, NULL), 0);
	return done();
}
