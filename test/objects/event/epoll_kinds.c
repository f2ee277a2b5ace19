/* epoll: timerfd, signalfd, pidfd, inotify and a listening socket in one epoll */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>

static int ep;

static void add(int fd, uint64_t data)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = data };

	CHECK(fd >= 0);
	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
}

static void expect(uint64_t data)
{
	struct epoll_event ev[8];

	CHECK_EQ(epoll_wait(ep, ev, 8, 10000), 1);
	CHECK_EQ(ev[0].data.u64, data);
}

int main(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct itimerspec soon = { .it_value = { 0, 1000000 } };
	char buf[4096];
	sigset_t set;

	ht_init();
	ep = epoll_create1(0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pid_t child = fork();
	if (child == 0)
		for (;;)
			pause();
	int timer = timerfd_create(CLOCK_MONOTONIC, 0), signals = signalfd(-1, &set, 0), listener = socket(AF_UNIX, SOCK_STREAM, 0);
	int pidfd = syscall(SYS_pidfd_open, child, 0), inotify = inotify_init1(0);
	strcpy(addr.sun_path, ht_path("sock"));
	CHECK_EQ(bind(listener, (void *)&addr, sizeof addr), 0);
	CHECK_EQ(listen(listener, 1), 0);
	CHECK_EQ(mkdir(ht_path("watched"), 0755), 0);
	CHECK(inotify_add_watch(inotify, ht_path("watched"), IN_CREATE) >= 0);
	add(timer, 1);
	add(signals, 2);
	add(pidfd, 3);
	add(inotify, 4);
	add(listener, 5);
	for (int round = 0; point(); round++) {
		struct epoll_event ev;

		CHECK_EQ(epoll_wait(ep, &ev, 1, 0), 0);
		CHECK_EQ(timerfd_settime(timer, 0, &soon, NULL), 0);
		expect(1);
		CHECK_EQ(read(timer, buf, 8), 8);
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
		expect(2);
		CHECK_EQ(read(signals, buf, sizeof(struct signalfd_siginfo)), sizeof(struct signalfd_siginfo));
		snprintf(buf, sizeof buf, "%s/%d", ht_path("watched"), round);
		CHECK_EQ(mkdir(buf, 0755), 0);
		expect(4);
		CHECK(read(inotify, buf, sizeof buf) > 0);
		int client = socket(AF_UNIX, SOCK_STREAM, 0);
		CHECK_EQ(connect(client, (void *)&addr, sizeof addr), 0);
		expect(5);
		close(accept(listener, NULL, NULL));
		close(client);
	}
	CHECK_EQ(kill(child, SIGKILL), 0);
	expect(3);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	return done();
}
