/* names that are no UTF-8, have line ends, or end in " (deleted)" */
#include "file.h"

int main(void)
{
	static const char *names[] = { "\xff\xfe", "two\nlines", "f (deleted)", "tab\there", "\"quoted\\" };
	int fd[5];

	ht_init();
	for (int i = 0; i < 5; i++)
		fd[i] = make(names[i], O_RDWR, names[i]);
	while (point())
		for (int i = 0; i < 5; i++) {
			reads(fd[i], 0, names[i]);
			link_is(fd[i], ht_path(names[i]));
		}
	return done();
}
