/* The program that is checkpointed.
 *
 *   subject SIZE_MIB 4k|huge random|text|zero DIRTY_MIB_S THREADS PROCESSES STATS
 *
 * All processes together have SIZE_MIB. The first one steps each 100 µs and
 * writes into the file STATS, which it maps: its steps, the longest time
 * between two of them, and when it took the first one after that.
 */
#include "raw.h"

struct stats {
	volatile uint64_t ready, steps, reset; /* reset: set by the reader */
	volatile double longest;              /* seconds between two steps */
	volatile double after;                /* CLOCK_REALTIME of the step that ended it */
	volatile uint64_t spread; /* set by the reader: write so many pages, at equal distances; then 0 */
};

static char *mem;
static size_t size;
static double rate; /* bytes a second */

static void nap(long ns)
{
	struct timespec t = {0, ns};
	nanosleep(&t, NULL);
}

static _Noreturn void *idle(void *arg)
{
	(void)arg;
	for (;;)
		nap(100000000);
}

/* dirty writes to one word of each page it comes to, at the rate asked for */
static _Noreturn void *dirty(void *arg)
{
	uint64_t s = 1;
	double begun = now(), done = 0;
	(void)arg;
	for (;;) {
		double due = (now() - begun) * rate;
		if (due - done > rate / 10) /* it stood still: what it missed is not made up for */
			begun = now(), due = done = 0;
		for (; done < due; done += 4096)
			*(volatile uint64_t *)(mem + next_random(&s) % (size / 4096) * 4096) = s;
		nap(1000000);
	}
}

static void spread(struct stats *st)
{
	size_t pages = size / 4096, n = st->spread < pages ? st->spread : pages;
	for (size_t i = 0; i < n; i++)
		++*(volatile uint64_t *)(mem + pages * i / n * 4096);
	st->spread = 0;
}

static void start(void *(*f)(void *))
{
	pthread_t t;
	pthread_attr_t a;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	if (pthread_create(&t, &a, f, NULL) != 0)
		DIE("thread");
}

static void step(struct stats *st)
{
	double last = seconds(CLOCK_REALTIME);
	uint64_t reset = st->reset;
	prctl(PR_SET_TIMERSLACK, 1);
	st->ready = 1;
	for (;;) {
		nap(100000);
		if (st->spread)
			spread(st);
		double t = seconds(CLOCK_REALTIME);
		if (st->reset != reset) {
			reset = st->reset;
			st->longest = 0;
		} else if (t - last > st->longest) {
			st->longest = t - last;
			st->after = t;
		}
		last = t;
		st->steps++;
	}
}

int main(int argc, char **argv)
{
	if (argc != 8) {
		fprintf(stderr, "usage: subject SIZE_MIB 4k|huge random|text|zero DIRTY_MIB_S THREADS PROCESSES STATS\n");
		return 2;
	}
	rate = atof(argv[4]) * MIB;
	int threads = atoi(argv[5]), processes = atoi(argv[6]);
	size = (strtoul(argv[1], NULL, 10) * MIB / processes + 4095) & ~4095UL;
	int fd = open(argv[7], O_RDWR);
	struct stats *st = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || st == MAP_FAILED)
		DIE(argv[7]);
	close(fd);
	int first = 1;
	for (int i = 1; i < processes && first; i++) {
		pid_t pid = fork();
		if (pid < 0)
			DIE("fork");
		first = pid != 0;
		if (!first)
			prctl(PR_SET_PDEATHSIG, SIGKILL);
	}
	mem = reserve(size, !strcmp(argv[2], "huge"));
	fill(mem, size, argv[3]);
	if (!first)
		for (;;)
			pause();
	for (int i = rate > 0 ? 2 : 1; i < threads; i++)
		start(idle);
	if (rate > 0)
		start(dirty);
	step(st);
}
