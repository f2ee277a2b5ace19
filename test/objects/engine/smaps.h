/* What /proc/self/smaps says of a mapping. */
#ifndef SMAPS_H
#define SMAPS_H

/* smaps_flag tells whether the mapping at addr has one of the two-letter flags
 * of proc_pid_smaps(5). */
static inline int smaps_flag(const void *addr, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[600];
	unsigned long start, end;
	int in = 0, has = 0;

	CHECK(f);
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			in = start <= (unsigned long)addr && (unsigned long)addr < end;
		else if (in && strncmp(line, "VmFlags:", 8) == 0)
			for (char *p = line + 8; (p = strstr(p, flag)); p += 2)
				has |= p[-1] == ' ' && (p[2] == ' ' || p[2] == '\n');
	}
	fclose(f);
	return has;
}

static inline char *map_private(size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

/* faults tells whether a byte cannot be read. */
static inline int faults(const char *addr)
{
	int p[2], bad;

	CHECK(pipe(p) == 0);
	bad = write(p[1], addr, 1) != 1;
	CHECK(!bad || errno == EFAULT);
	close(p[0]);
	close(p[1]);
	return bad;
}

#endif
