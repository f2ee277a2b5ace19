// Threads that each wait in another system call. None may see EINTR by a checkpoint. The
// first argument is "blocked": calls that wait until they are told to go on; "sleeping":
// calls that end by themselves; "naps": short ones, again and again; or "signal": one that
// a signal interrupts. The second is a folder for files.
#include "t.h"
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

static char *dir;
static __thread volatile sig_atomic_t handled;
static volatile sig_atomic_t handled_by_main;

static void on_usr1(int sig)
{
	handled++;
	handled_by_main++;
}

static char *in_dir(const char *name)
{
	char *path;
	CHECK(asprintf(&path, "%s/%s", dir, name) > 0);
	return path;
}

// row is a call under test. Its thread notes that it enters just before it blocks.
struct row {
	const char *name;
	void (*prepare)(void);
	int (*wait)(void); // true if the result is right
	void (*finish)(void);
	volatile int entered;
	pid_t tid;
	pthread_t thread;
};

static __thread struct row *self;
#define ENTER (self->entered = 1)

static int pp[2], ev, tfd, ino, sp[2], listener, lock_fd, ofd_fd, fifo_path, msq, sems, ep, ep_ev;
static char poll_pipes;
static int polls[8][2];
static uint32_t futex_word, pi_word;
static pid_t child_a, child_b;
static mqd_t mq;
static char mq_name[64];
static aio_context_t aio;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void prep_pipe(void) { CHECK(pipe(pp) == 0); }
static int read_pipe(void) { char c; ENTER; return read(pp[0], &c, 1) == 1; }
static void end_pipe(void) { CHECK(write(pp[1], "x", 1) == 1); }

static void prep_eventfd(void) { CHECK((ev = eventfd(0, 0)) >= 0); }
static int read_eventfd(void) { uint64_t n; ENTER; return read(ev, &n, 8) == 8 && n == 5; }
static void end_eventfd(void) { uint64_t n = 5; CHECK(write(ev, &n, 8) == 8); }

static void prep_timerfd(void) { CHECK((tfd = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0); }
static int read_timerfd(void) { uint64_t n; ENTER; return read(tfd, &n, 8) == 8; }
static void end_timerfd(void)
{
	struct itimerspec its = {.it_value = {0, 1}};
	CHECK(timerfd_settime(tfd, 0, &its, 0) == 0);
}

static void prep_inotify(void)
{
	CHECK((ino = inotify_init1(0)) >= 0);
	CHECK(inotify_add_watch(ino, dir, IN_DELETE) > 0);
}
static int read_inotify(void) { char b[4096]; ENTER; return read(ino, b, sizeof b) > 0; }
static void end_inotify(void)
{
	int f = open(in_dir("seen"), O_CREAT | O_WRONLY, 0600);
	CHECK(f >= 0 && close(f) == 0 && unlink(in_dir("seen")) == 0);
}

static void prep_recv(void) { CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0); }
static int do_recv(void) { char c; ENTER; return recv(sp[0], &c, 1, 0) == 1; }
static void end_recv(void) { CHECK(send(sp[1], "x", 1, 0) == 1); }

static void prep_accept(void)
{
	snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", dir);
	CHECK((listener = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0);
	CHECK(bind(listener, (void *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
}
static int do_accept(void) { ENTER; return accept(listener, 0, 0) >= 0; }
static void end_accept(void)
{
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(connect(s, (void *)&address, sizeof address) == 0);
}

static int futex_wait(void) { ENTER; return syscall(SYS_futex, &futex_word, FUTEX_WAIT, 0, 0, 0, 0) == 0; }
static void end_futex(void) { futex_word = 1; CHECK(syscall(SYS_futex, &futex_word, FUTEX_WAKE, 1, 0, 0, 0) == 1); }

static void prep_pi(void) { CHECK(syscall(SYS_futex, &pi_word, FUTEX_LOCK_PI, 0, 0, 0, 0) == 0); }
static int lock_pi(void) { ENTER; return syscall(SYS_futex, &pi_word, FUTEX_LOCK_PI, 0, 0, 0, 0) == 0; }
static void end_pi(void) { CHECK(syscall(SYS_futex, &pi_word, FUTEX_UNLOCK_PI, 0, 0, 0, 0) == 0); }

static pid_t child(void)
{
	pid_t c = fork();
	CHECK(c >= 0);
	if (c == 0)
		for (;;)
			pause();
	return c;
}
static void prep_wait4(void) { child_a = child(); }
static int do_wait4(void) { int s; ENTER; return wait4(child_a, &s, 0, 0) == child_a && WTERMSIG(s) == SIGKILL; }
static void end_wait4(void) { CHECK(kill(child_a, SIGKILL) == 0); }
static void prep_waitid(void) { child_b = child(); }
static int do_waitid(void) { siginfo_t si; ENTER; return waitid(P_PID, child_b, &si, WEXITED) == 0 && si.si_pid == child_b; }
static void end_waitid(void) { CHECK(kill(child_b, SIGKILL) == 0); }

static void prep_flock(void) { CHECK((lock_fd = open(in_dir("flock"), O_CREAT | O_RDWR, 0600)) >= 0 && flock(lock_fd, LOCK_EX) == 0); }
static int do_flock(void) { int f = open(in_dir("flock"), O_RDWR); ENTER; return flock(f, LOCK_EX) == 0; }
static void end_flock(void) { CHECK(flock(lock_fd, LOCK_UN) == 0); }

static struct flock whole = {.l_type = F_WRLCK};
static void prep_ofd(void) { CHECK((ofd_fd = open(in_dir("ofd"), O_CREAT | O_RDWR, 0600)) >= 0 && fcntl(ofd_fd, F_OFD_SETLK, &whole) == 0); }
static int do_ofd(void) { struct flock l = whole; int f = open(in_dir("ofd"), O_RDWR); ENTER; return fcntl(f, F_OFD_SETLKW, &l) == 0; }
static void end_ofd(void) { close(ofd_fd); }

static void prep_fifo(void) { CHECK(mkfifo(in_dir("fifo"), 0600) == 0); }
static int open_fifo(void) { ENTER; return open(in_dir("fifo"), O_RDONLY) >= 0; }
static void end_fifo(void) { CHECK(open(in_dir("fifo"), O_WRONLY) >= 0); }

static void prep_mq(void)
{
	struct mq_attr a = {.mq_maxmsg = 2, .mq_msgsize = 8};
	snprintf(mq_name, sizeof mq_name, "/hiatus-test-%d", getpid());
	CHECK((mq = mq_open(mq_name, O_CREAT | O_EXCL | O_RDWR, 0600, &a)) >= 0 && mq_unlink(mq_name) == 0);
}
static int do_mq(void) { char b[8]; ENTER; return mq_receive(mq, b, 8, 0) == 1; }
static void end_mq(void) { CHECK(mq_send(mq, "x", 1, 0) == 0); }

static void prep_polls(void)
{
	if (!poll_pipes++)
		for (int i = 0; i < 8; i++)
			CHECK(pipe(polls[i]) == 0);
}
static int do_poll(void) { struct pollfd f = {polls[0][0], POLLIN, 0}; ENTER; return poll(&f, 1, -1) == 1; }
static void end_poll(void) { CHECK(write(polls[0][1], "x", 1) == 1); }
static int do_ppoll(void) { struct pollfd f = {polls[1][0], POLLIN, 0}; ENTER; return ppoll(&f, 1, 0, 0) == 1; }
static void end_ppoll(void) { CHECK(write(polls[1][1], "x", 1) == 1); }
static int do_select(void) { fd_set s; FD_ZERO(&s); FD_SET(polls[2][0], &s); ENTER; return select(polls[2][0] + 1, &s, 0, 0, 0) == 1; }
static void end_select(void) { CHECK(write(polls[2][1], "x", 1) == 1); }
static int do_pselect(void)
{
	fd_set s;
	sigset_t m;
	sigfillset(&m);
	FD_ZERO(&s);
	FD_SET(polls[3][0], &s);
	ENTER;
	return pselect(polls[3][0] + 1, &s, 0, 0, 0, &m) == 1;
}
static void end_pselect(void) { CHECK(write(polls[3][1], "x", 1) == 1); }

static int new_epoll(int fd)
{
	struct epoll_event e = {.events = EPOLLIN};
	int ep = epoll_create1(0);
	CHECK(ep >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0);
	return ep;
}
static int do_epoll(void) { struct epoll_event e; int ep = new_epoll(polls[4][0]); ENTER; return epoll_wait(ep, &e, 1, -1) == 1; }
static void end_epoll(void) { CHECK(write(polls[4][1], "x", 1) == 1); }
static int do_epoll_to(void) { struct epoll_event e; int ep = new_epoll(polls[5][0]); ENTER; return epoll_wait(ep, &e, 1, 1000000) == 1; }
static void end_epoll_to(void) { CHECK(write(polls[5][1], "x", 1) == 1); }

static void prep_msg(void) { CHECK((msq = msgget(IPC_PRIVATE, 0600)) >= 0); }
static int do_msg(void) { char b[64]; ENTER; return msgrcv(msq, b, 8, 0, 0) == 1; }
static void end_msg(void) { struct { long type; char c; } m = {1, 'x'}; CHECK(msgsnd(msq, &m, 1, 0) == 0); }

static int do_pause(void) { ENTER; return pause() == -1 && errno == EINTR && handled == 1; }
static int do_sigsuspend(void) { sigset_t m; sigemptyset(&m); ENTER; return sigsuspend(&m) == -1 && errno == EINTR && handled == 1; }

static void prep_sem(void) { CHECK((sems = semget(IPC_PRIVATE, 2, 0600)) >= 0); }
static int do_semop(void) { struct sembuf b = {0, -1, 0}; ENTER; return semop(sems, &b, 1) == 0; }
static int do_semtimedop(void) { struct sembuf b = {1, -1, 0}; struct timespec t = {1000, 0}; ENTER; return semtimedop(sems, &b, 1, &t) == 0; }
static void end_sem(void) { struct sembuf b = {0, 1, 0}; CHECK(semop(sems, &b, 1) == 0); }
static void end_semtimed(void) { struct sembuf b = {1, 1, 0}; CHECK(semop(sems, &b, 1) == 0); }

static sigset_t usr2;
static int do_sigwaitinfo(void) { siginfo_t si; ENTER; return sigwaitinfo(&usr2, &si) == SIGUSR2; }
static int do_sigtimedwait(void) { siginfo_t si; struct timespec t = {1000, 0}; ENTER; return sigtimedwait(&usr2, &si, &t) == SIGUSR2; }

static void prep_aio(void) { CHECK(syscall(SYS_io_setup, 4, &aio) == 0); }
static int do_aio(void) { struct io_event e; ENTER; return syscall(SYS_io_getevents, aio, 1L, 1L, &e, 0) == 1; }
static void end_aio(void)
{
	static struct iocb cb, *list[] = {&cb};
	static char byte = 'x';
	cb = (struct iocb){.aio_fildes = open(in_dir("aio"), O_CREAT | O_RDWR, 0600), .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_buf = (uintptr_t)&byte, .aio_nbytes = 1};
	CHECK(syscall(SYS_io_submit, aio, 1L, list) == 1);
}

static void timed_recv_prep(void);
static int timeo[2];
static void timed_recv_prep(void)
{
	struct timeval tv = {1000, 0};
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, timeo) == 0);
	CHECK(setsockopt(timeo[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
}
static int timed_recv(void) { char c; ENTER; return recv(timeo[0], &c, 1, 0) == 1; }
static void end_timed_recv(void) { CHECK(send(timeo[1], "x", 1, 0) == 1); }

static struct row *row_of(const char *name);
static void wake(const char *name, int sig) { CHECK(pthread_kill(row_of(name)->thread, sig) == 0); }
static void end_pause(void) { wake("pause", SIGUSR1); }
static void end_sigsuspend(void) { wake("sigsuspend", SIGUSR1); }
static void end_sigwaitinfo(void) { wake("sigwaitinfo", SIGUSR2); }
static void end_sigtimedwait(void) { wake("sigtimedwait", SIGUSR2); }

static struct row blocked[] = {
	{"read of a pipe", prep_pipe, read_pipe, end_pipe},
	{"read of an eventfd", prep_eventfd, read_eventfd, end_eventfd},
	{"read of a timerfd", prep_timerfd, read_timerfd, end_timerfd},
	{"read of inotify", prep_inotify, read_inotify, end_inotify},
	{"recv", prep_recv, do_recv, end_recv},
	{"recv with SO_RCVTIMEO", timed_recv_prep, timed_recv, end_timed_recv},
	{"accept", prep_accept, do_accept, end_accept},
	{"FUTEX_WAIT", 0, futex_wait, end_futex},
	{"FUTEX_LOCK_PI", prep_pi, lock_pi, end_pi},
	{"wait4", prep_wait4, do_wait4, end_wait4},
	{"waitid", prep_waitid, do_waitid, end_waitid},
	{"flock", prep_flock, do_flock, end_flock},
	{"F_OFD_SETLKW", prep_ofd, do_ofd, end_ofd},
	{"open of a fifo", prep_fifo, open_fifo, end_fifo},
	{"mq_receive", prep_mq, do_mq, end_mq},
	{"poll", prep_polls, do_poll, end_poll},
	{"ppoll", prep_polls, do_ppoll, end_ppoll},
	{"select", prep_polls, do_select, end_select},
	{"pselect", prep_polls, do_pselect, end_pselect},
	{"epoll_wait", prep_polls, do_epoll, end_epoll},
	{"epoll_wait with a time-out", prep_polls, do_epoll_to, end_epoll_to},
	{"msgrcv", prep_msg, do_msg, end_msg},
	{"pause", 0, do_pause, end_pause},
	{"sigsuspend", 0, do_sigsuspend, end_sigsuspend},
	{"semop", prep_sem, do_semop, end_sem},
	{"semtimedop", 0, do_semtimedop, end_semtimed},
	{"sigwaitinfo", 0, do_sigwaitinfo, end_sigwaitinfo},
	{"sigtimedwait", 0, do_sigtimedwait, end_sigtimedwait},
	{"io_getevents", prep_aio, do_aio, end_aio},
	{0},
};

// Sleeps, all of the same length.
#define SLEEP 1.5
static struct timespec length = {1, 500000000};
static uint32_t never;

static int s_nanosleep(void) { struct timespec t = length; return syscall(SYS_nanosleep, &t, 0) == 0; }
static int s_nanosleep_rmtp(void) { struct timespec t = length; return syscall(SYS_nanosleep, &t, &t) == 0; }
static int s_clock(void) { struct timespec t = length; return clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0) == 0; }
static int s_clock_abs(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += 1;
	if ((t.tv_nsec += 500000000) >= 1000000000)
		t.tv_sec++, t.tv_nsec -= 1000000000;
	return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0) == 0;
}
static int s_poll(void) { return poll(0, 0, SLEEP * 1000) == 0; }
static int s_ppoll(void) { struct timespec t = length; return ppoll(0, 0, &t, 0) == 0; }
static int s_select(void) { struct timeval t = {1, 500000}; return select(0, 0, 0, 0, &t) == 0; }
static int s_pselect(void) { struct timespec t = length; return pselect(0, 0, 0, 0, &t, 0) == 0; }
static int s_futex(void) { return syscall(SYS_futex, &never, FUTEX_WAIT, 0, &length, 0, 0) == -1 && errno == ETIMEDOUT; }
static int s_epoll(void) { struct epoll_event e; return epoll_wait(epoll_create1(0), &e, 1, SLEEP * 1000) == 0; }
static int s_semtimedop(void) { struct sembuf b = {0, -1, 0}; return semtimedop(sems, &b, 1, &length) == -1 && errno == EAGAIN; }
static int s_sigtimedwait(void) { siginfo_t si; return sigtimedwait(&usr2, &si, &length) == -1 && errno == EAGAIN; }
static int s_aio(void) { struct io_event e; struct timespec t = length; return syscall(SYS_io_getevents, aio, 1L, 1L, &e, &t) == 0; }
static void prep_timeo(void)
{
	struct timeval tv = {1, 500000};
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, timeo) == 0);
	CHECK(setsockopt(timeo[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
}
static int s_recv(void) { char c; return recv(timeo[0], &c, 1, 0) == -1 && errno == EAGAIN; }

static struct row sleeping[] = {
	{"nanosleep", 0, s_nanosleep},
	{"nanosleep with the rest", 0, s_nanosleep_rmtp},
	{"clock_nanosleep", 0, s_clock},
	{"clock_nanosleep absolute", 0, s_clock_abs},
	{"poll", 0, s_poll},
	{"ppoll", 0, s_ppoll},
	{"select", 0, s_select},
	{"pselect", 0, s_pselect},
	{"FUTEX_WAIT", 0, s_futex},
	{"epoll_wait", 0, s_epoll},
	{"semtimedop", prep_sem, s_semtimedop},
	{"sigtimedwait", 0, s_sigtimedwait},
	{"io_getevents", prep_aio, s_aio},
	{"recv with SO_RCVTIMEO", prep_timeo, s_recv},
	{0},
};

static struct row *rows;

static struct row *row_of(const char *name)
{
	for (struct row *r = rows; r->name; r++)
		if (!strcmp(r->name, name))
			return r;
	CHECK(!"no such row");
	return 0;
}

static void *run(void *arg)
{
	self = arg;
	self->tid = gettid();
	double begin = now(CLOCK_MONOTONIC);
	if (rows == sleeping)
		ENTER;
	int right = self->wait();
	int err = errno;
	double took = now(CLOCK_MONOTONIC) - begin;
	if (rows == sleeping && took < SLEEP - 0.002)
		dprintf(1, "%s: ended early, after %.4f s\n", self->name, took);
	else if (right)
		dprintf(1, "%s: ok %.0f\n", self->name, rows == sleeping ? (took - SLEEP) * 1000 : 0);
	else
		dprintf(1, "%s: wrong result, errno %d (%s)\n", self->name, err, strerror(err));
	return 0;
}

// settle waits until every thread sleeps in its call.
static void settle(void)
{
	for (struct row *r = rows; r->name; r++) {
		char path[64], buf[256];
		for (;;) {
			if (r->entered) {
				snprintf(path, sizeof path, "/proc/self/task/%d/stat", r->tid);
				int f = open(path, O_RDONLY);
				ssize_t n = f < 0 ? -1 : read(f, buf, sizeof buf - 1);
				close(f);
				if (n < 0)
					break; // it has ended
				buf[n] = 0;
				if (strstr(buf, ") S "))
					break;
			}
			usleep(500);
		}
	}
}

static void signalled(void)
{
	struct epoll_event e;
	int ep = new_epoll(polls[0][0]);
	ready();
	int n = epoll_wait(ep, &e, 1, -1);
	dprintf(1, "epoll_wait %d, EINTR %d, handled %d\n", n, errno == EINTR, handled_by_main);
	for (char line[256];;)
		command(line);
}

// nap sleeps for NAP again and again, in the call of its number, never for less.
#define NAP 5000000
static void *nap(void *number)
{
	static const struct timespec t = {0, NAP};
	int ep = epoll_create1(0);
	for (;;) {
		double begin = now(CLOCK_MONOTONIC);
		struct epoll_event e;
		switch ((long)number) {
		case 0: CHECK(nanosleep(&t, 0) == 0); break;
		case 1: CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0) == 0); break;
		case 2: CHECK(poll(0, 0, NAP / 1000000) == 0); break;
		case 3: CHECK(epoll_wait(ep, &e, 1, NAP / 1000000) == 0); break;
		}
		double took = now(CLOCK_MONOTONIC) - begin;
		if (took < NAP / 1e9) {
			dprintf(1, "nap %ld ended after %.6f s\n", (long)number, took);
			exit(1);
		}
	}
}

static void naps(void)
{
	pthread_t t;
	for (long i = 0; i < 4; i++)
		CHECK(pthread_create(&t, 0, nap, (void *)i) == 0);
	ready();
	for (char line[256];;) {
		command(line);
		dprintf(1, "alive\n");
	}
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_usr1};
	CHECK(argc == 3);
	dir = argv[2];
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	CHECK(sigaction(SIGUSR1, &sa, 0) == 0 && sigprocmask(SIG_BLOCK, &usr2, 0) == 0);
	if (!strcmp(argv[1], "signal")) {
		prep_polls();
		signalled();
	}
	if (!strcmp(argv[1], "naps"))
		naps();
	rows = strcmp(argv[1], "blocked") ? sleeping : blocked;
	for (struct row *r = rows; r->name; r++)
		if (r->prepare)
			r->prepare();
	for (struct row *r = rows; r->name; r++)
		CHECK(pthread_create(&r->thread, 0, run, r) == 0);
	settle();
	ready();
	for (char line[256];;) {
		command(line);
		if (!strcmp(line, "settle")) {
			settle();
			dprintf(1, "settled\n");
			continue;
		}
		for (struct row *r = rows; r->name; r++) {
			if (r->finish)
				r->finish();
			CHECK(pthread_join(r->thread, 0) == 0);
		}
		msgctl(msq, IPC_RMID, 0);
		semctl(sems, 0, IPC_RMID);
		dprintf(1, "done\n");
	}
}
