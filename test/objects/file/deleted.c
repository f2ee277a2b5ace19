/* a deleted file: two descriptions and two mappings of it stay one */
#include "file.h"

int main(void)
{
	char gone[1100], turn = 'a';

	ht_init();
	int a = make("f", O_RDWR, "content"), b = open(ht_path("f"), O_RDONLY), c = dup(a);
	CHECK(ftruncate(a, 8192) == 0);
	char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
	char *n = mmap(NULL, 4096, PROT_READ, MAP_SHARED, b, 4096);
	CHECK(m != MAP_FAILED && n != MAP_FAILED);
	struct timespec times[2] = { { 1000000000, 5 }, { 1000000001, 6 } };
	CHECK(fchmod(a, 0421) == 0);
	snprintf(gone, sizeof gone, "%s (deleted)", ht_path("f"));
	CHECK(unlink(ht_path("f")) == 0);
	CHECK_EQ(lseek(a, 3, SEEK_SET), 3);
	CHECK_EQ(lseek(b, 5, SEEK_SET), 5);
	CHECK(futimens(a, times) == 0);
	while (point()) {
		struct stat st = stat_of(a);
		CHECK(same_file(a, b));
		CHECK_EQ(st.st_nlink, 0);
		CHECK_EQ(st.st_mode, S_IFREG | 0421);
		CHECK_EQ(st.st_size, 8192);
		CHECK(st.st_mtim.tv_sec == 1000000001 && st.st_mtim.tv_nsec == 6);
		link_is(a, gone);
		CHECK_EQ(lseek(a, 0, SEEK_CUR), 3);
		CHECK_EQ(lseek(c, 3, SEEK_SET), 3);
		CHECK_EQ(lseek(b, 0, SEEK_CUR), 5);
		CHECK(strcmp(m, "content") == 0);
		turn++;
		CHECK_EQ(pwrite(a, &turn, 1, 4096), 1);
		CHECK(n[0] == turn && m[4096] == turn);
		m[4097] = turn;
		char got;
		CHECK_EQ(pread(b, &got, 1, 4097), 1);
		CHECK(got == turn);
		CHECK(mprotect(n, 4096, PROT_READ | PROT_WRITE) < 0 && errno == EACCES);
		CHECK(msync(m, 8192, MS_SYNC) == 0);
		CHECK(futimens(a, times) == 0);
	}
	return done();
}
