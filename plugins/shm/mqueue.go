package shm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// mqueueMagic is MQUEUE_MAGIC of the kernel's ipc/mqueue.c.
const mqueueMagic = 0x19800202

// claimedQueue is a POSIX queue during a checkpoint, in the order of
// state.POSIX.
type claimedQueue struct {
	dev, ino uint64
	count    int64            // of its messages
	refs     []plugin.FileRef // none: nobody has it open
	writable map[plugin.FileRef]bool
	status   mqStatus
	link     string
	read     bool
}

// ClaimFile claims descriptors of POSIX message queues.
func (p *Plugin) ClaimFile(_ context.Context, f plugin.OpenFile) error {
	if f.Stat.Mode&unix.S_IFMT != unix.S_IFREG || !strings.HasPrefix(f.Link, "/") || f.Flags&unix.O_PATH != 0 {
		return plugin.ErrNotMine
	}
	fd, err := f.Dup()
	if err != nil {
		return fmt.Errorf("pid %d fd %d: %s: duplicate: %w", f.Refs[0].PID, f.Refs[0].FD, f.Link, err)
	}
	defer unix.Close(fd)
	if !isMqueue(fd) {
		return plugin.ErrNotMine
	}
	i, err := p.addQueue(fd, f.Link, f.Stat.Dev, f.Stat.Ino)
	if err != nil {
		return plugin.Refuse(f, "%v", err)
	}
	q := &p.saving.queues[i]
	q.refs = append(q.refs, f.Refs...)
	for _, r := range f.Refs {
		q.writable[r] = f.Flags&unix.O_ACCMODE == unix.O_RDWR
	}
	if p.state.Files == nil {
		p.state.Files = map[int]mqd{}
	}
	p.state.Files[f.ID] = mqd{i, f.Flags & (unix.O_ACCMODE | unix.O_NONBLOCK)}
	return nil
}

func isMqueue(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == mqueueMagic
}

// addQueue enters the queue of fd, if it is new, and returns its index.
func (p *Plugin) addQueue(fd int, link string, dev, ino uint64) (int, error) {
	i := slices.IndexFunc(p.saving.queues, func(q claimedQueue) bool { return q.dev == dev && q.ino == ino })
	if i >= 0 {
		return i, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("fstat: %w", err)
	}
	attr, err := mqGetattr(fd)
	if err != nil {
		return 0, fmt.Errorf("mq_getattr: %w", err)
	}
	if err := makeable(attr); err != nil {
		return 0, err
	}
	status, err := readStatus(fd)
	if err != nil {
		return 0, err
	}
	q := posixQueue{Unlinked: st.Nlink == 0, UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777, Maximum: attr.Maximum, Size: attr.Size}
	q.Name = path.Base(link)
	if q.Unlinked {
		q.Name = strings.TrimSuffix(q.Name, " (deleted)")
	}
	p.state.POSIX = append(p.state.POSIX, q)
	p.saving.queues = append(p.saving.queues, claimedQueue{dev: dev, ino: ino, count: attr.Count, status: status, link: link,
		writable: map[plugin.FileRef]bool{}})
	return len(p.saving.queues) - 1, nil
}

// makeable says whether a restart can make the queue: a new IPC namespace has
// the default limits, which bind whoever is not privileged on the host
// (ipc/mqueue.c, mq_attr_ok).
func makeable(a mqAttr) error {
	const maximum, size = 10, 8192
	if os.Geteuid() != 0 && (a.Maximum > maximum || a.Size > size) {
		return fmt.Errorf("it holds %d messages of %d bytes: in a new IPC namespace, an ordinary user may have %d of %d", a.Maximum, a.Size, maximum, size)
	}
	return nil
}

// mqStatus is what reading a queue's file tells, mq_overview(7).
type mqStatus struct {
	notify int // sigev_notify
	signal int
	pid    int // as the supervisor sees it; 0: nobody is notified
}

func readStatus(fd int) (mqStatus, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return mqStatus{}, err
	}
	defer f.Close()
	var buf [256]byte
	n, err := f.Read(buf[:])
	if err != nil {
		return mqStatus{}, err
	}
	return parseStatus(string(buf[:n]))
}

func parseStatus(text string) (s mqStatus, err error) {
	fields := map[string]*int{"NOTIFY": &s.notify, "SIGNO": &s.signal, "NOTIFY_PID": &s.pid}
	for _, f := range strings.Fields(text) {
		key, value, _ := strings.Cut(f, ":")
		dst := fields[key]
		if dst == nil {
			continue
		}
		if *dst, err = strconv.Atoi(value); err != nil {
			return s, fmt.Errorf("status of the queue: %q", f)
		}
		delete(fields, key)
	}
	if len(fields) > 0 {
		return s, fmt.Errorf("status of the queue: %q", text)
	}
	return s, nil
}

// savePOSIX reads the queues that proc is to read. All descriptions have been
// claimed when it is called first.
func (p *Plugin) savePOSIX(ctx context.Context, proc plugin.Process) error {
	if !p.saving.listed {
		p.saving.listed = true
		if err := p.findUnopened(); err != nil {
			return err
		}
		if err := p.refuseOutside(); err != nil {
			return err
		}
	}
	var errs []error
	for i := range p.saving.queues {
		q := &p.saving.queues[i]
		if q.read || p.readerOf(q) != proc.PID() {
			continue
		}
		q.read = true
		if err := p.readQueue(ctx, proc, q, &p.state.POSIX[i]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// readerOf is the process in which the queue is read: the one that is
// notified, as only itself can register again.
func (p *Plugin) readerOf(q *claimedQueue) int {
	for _, proc := range p.saving.tree.procs {
		if q.status.pid != 0 && proc.HostPID() == q.status.pid {
			return proc.PID()
		}
	}
	if len(q.refs) > 0 {
		return q.refs[0].PID
	}
	return p.saving.tree.procs[0].PID()
}

// readQueue takes all messages and sends them again, in one batch.
func (p *Plugin) readQueue(ctx context.Context, proc plugin.Process, q *claimedQueue, s *posixQueue) error {
	refuse := func(format string, args ...any) error {
		e := &plugin.RefusalError{PID: proc.PID(), FD: -1, Object: "POSIX message queue " + q.link, Reason: fmt.Sprintf(format, args...)}
		if len(q.refs) > 0 {
			e.PID, e.FD = q.refs[0].PID, q.refs[0].FD
		}
		return e
	}
	if q.status.pid != 0 {
		if proc.HostPID() != q.status.pid {
			return refuse("process %d outside of the computation is notified", q.status.pid)
		}
		n, err := newNotification(proc, q)
		if err != nil {
			return refuse("%v", err)
		}
		s.Notify = n
	}
	if q.count == 0 && (s.Notify == nil || s.Notify.Signal == 0) {
		return nil
	}
	d, err := newDrain(ctx, proc, q, s)
	if err != nil {
		return err
	}
	defer d.buf.free(ctx)
	if err := d.run(ctx); err != nil {
		return refuse("%v", err)
	}
	return nil
}

// newNotification describes what is registered, but for its value.
func newNotification(proc plugin.Process, q *claimedQueue) (*notification, error) {
	const sigevSignal, sigevNone = 0, 1
	i := slices.IndexFunc(q.refs, func(r plugin.FileRef) bool { return r.PID == proc.PID() })
	if i < 0 {
		return nil, errors.New("the process that is notified has it open no more")
	}
	n := &notification{PID: proc.PID(), FD: q.refs[i].FD}
	switch q.status.notify {
	case sigevNone:
		return n, nil
	case sigevSignal:
		n.Signal = q.status.signal
	default:
		return nil, errors.New("a thread is notified (SIGEV_THREAD), which the kernel does not tell enough of")
	}
	if n.Signal <= 0 || n.Signal > lastSignal || n.Signal == int(unix.SIGKILL) || n.Signal == int(unix.SIGSTOP) {
		return nil, fmt.Errorf("it notifies by signal %d, whose value cannot be read", n.Signal)
	}
	pending, err := isPending(plugin.LiveTID(proc), n.Signal)
	if err == nil && pending || n.Signal == int(unix.SIGWINCH) {
		err = fmt.Errorf("it notifies by signal %d, whose value cannot be read while another one is pending: try again", n.Signal)
	}
	return n, err
}

// isPending says whether a signal is pending in a thread or its process,
// proc_pid_status(5).
func isPending(tid, signal int) (bool, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "SigPnd" && key != "ShdPnd" {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return false, fmt.Errorf("status: %q", line)
		}
		if set>>(signal-1)&1 != 0 {
			return true, nil
		}
	}
	return false, nil
}

// findUnopened adds the named queues that no process has open.
func (p *Plugin) findUnopened() error {
	dir := p.queueDir()
	if dir == "" {
		return nil
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("POSIX message queues: %w", err)
	}
	t := p.saving.tree
	for _, e := range names {
		file := path.Join(dir, e.Name())
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			continue // unlinked meanwhile
		}
		known := slices.ContainsFunc(p.saving.queues, func(q claimedQueue) bool { return q.dev == uint64(st.Dev) && q.ino == st.Ino })
		ours := t.own || t.uids[st.Uid] && st.Ctim.Sec >= t.since && len(openOutside(t, uint64(st.Dev), st.Ino)) == 0
		if known || !ours {
			continue
		}
		fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = p.addQueue(fd, "/"+e.Name(), uint64(st.Dev), st.Ino)
			unix.Close(fd)
		}
		if err != nil {
			return plugin.RefuseProcess(t.procs[0], "POSIX message queue /"+e.Name(), "%v", err)
		}
	}
	return nil
}

// refuseOutside refuses queues that other processes have open.
func (p *Plugin) refuseOutside() error {
	t := p.saving.tree
	if t.own || p.config.AllowOutside {
		return nil
	}
	var errs []error
	for _, q := range p.saving.queues {
		if pids := openOutside(t, q.dev, q.ino); len(pids) > 0 && len(q.refs) > 0 {
			errs = append(errs, &plugin.RefusalError{PID: q.refs[0].PID, FD: q.refs[0].FD, Object: "POSIX message queue " + q.link,
				Reason: fmt.Sprintf("process %d outside of the computation has it open too", pids[0])})
		}
	}
	return errors.Join(errs...)
}

// openOutside lists processes that are not of the tree and have the file open,
// of those whose descriptors may be seen.
func openOutside(t *tree, dev, ino uint64) (pids []int) {
	inside := map[int]bool{os.Getpid(): true}
	for _, proc := range t.procs {
		inside[proc.HostPID()] = true
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || inside[pid] {
			continue
		}
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, fd := range fds {
			var st unix.Stat_t
			file := fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())
			link, _ := os.Readlink(file)
			if strings.HasPrefix(link, "/") && unix.Stat(file, &st) == nil && uint64(st.Dev) == dev && st.Ino == ino {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// queueDir is a directory that shows the queues of the tree's IPC namespace,
// "" where there is none.
func (p *Plugin) queueDir() string {
	dir := "/dev/mqueue"
	if p.saving.tree.own {
		if p.queues < 0 {
			return ""
		}
		dir = fmt.Sprintf("/proc/self/fd/%d", p.queues)
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil || fs.Type != mqueueMagic {
		return ""
	}
	return dir
}

// firstRef is what proc has the queue open by, best for reading and writing.
func (q *claimedQueue) firstRef(pid int) (ref plugin.FileRef, ok bool) {
	var mine []plugin.FileRef
	for _, r := range q.refs {
		if r.PID == pid {
			mine = append(mine, r)
		}
	}
	if len(mine) == 0 {
		return ref, false
	}
	return slices.MaxFunc(mine, func(a, b plugin.FileRef) int {
		return cmp.Compare(order(q.writable[a]), order(q.writable[b]))
	}), true
}

func order(b bool) int {
	if b {
		return 1
	}
	return 0
}
