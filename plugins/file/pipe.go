package file

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/missing"
	"github.com/hiatus-project/hiatus/plugin"
)

// pipe is a pipe or a FIFO, with what is in it.
type pipe struct {
	Path              pathname `json:"path,omitempty"`    // of a FIFO
	Deleted           bool     `json:"deleted,omitempty"` // a FIFO without a name
	Mode              uint32   `json:"mode"`
	UID               int      `json:"uid,omitempty"` // of a FIFO
	GID               int      `json:"gid,omitempty"`
	missing.Directory          // of a FIFO
	Capacity          int      `json:"capacity"` // bytes, F_GETPIPE_SZ
	// Packets says that each chunk is a packet, pipe(2) with O_DIRECT, and
	// not a part of one stream.
	Packets bool     `json:"packets,omitempty"`
	Chunks  [][]byte `json:"chunks,omitempty"`
	// Fresh is a FIFO that no writer has opened since its reader: poll(2)
	// tells the reader no POLLHUP.
	Fresh bool `json:"fresh,omitempty"`
}

func (q *pipe) validate() error {
	if q == nil {
		return errors.New("null")
	}
	if q.Path != "" {
		if err := q.Path.validate(); err != nil {
			return err
		}
	} else if q.Deleted || q.Fresh {
		return errors.New("a FIFO without a path")
	}
	if q.Fresh && (q.Deleted || len(q.Chunks) > 0) {
		return errors.New("a deleted or filled FIFO that had no writer")
	}
	if q.UID < 0 || q.GID < 0 {
		return fmt.Errorf("a FIFO of user %d, group %d", q.UID, q.GID)
	}
	if err := q.Directory.Check(); err != nil {
		return err
	}
	if q.Capacity <= 0 || q.Capacity > maxCapacity {
		return fmt.Errorf("capacity %d", q.Capacity)
	}
	if !q.Packets && len(q.Chunks) > 1 {
		return fmt.Errorf("%d chunks of a stream", len(q.Chunks))
	}
	size := 0
	for _, c := range q.Chunks {
		if size += len(c); size > q.Capacity {
			return fmt.Errorf("content above the capacity %d", q.Capacity)
		}
	}
	return nil
}

// pipeClaim is a pipe of which descriptions have been claimed.
type pipeClaim struct {
	index          int
	reader, writer int // duplicates with that access; -1 where none was claimed
	first          plugin.OpenFile
}

// claimPipe notes an end. finishPipes does the rest, when all are known.
func (p *Plugin) claimPipe(f plugin.OpenFile, s *file, fd int) error {
	key := inodeKey{uint64(f.Stat.Dev), f.Stat.Ino}
	c := p.saving.pipes[key]
	if c == nil {
		q, err := p.newPipe(f, s, fd)
		if err != nil {
			return err
		}
		c = &pipeClaim{index: len(p.state.Pipes), reader: -1, writer: -1, first: f}
		p.saving.pipes[key] = c
		p.saving.pipeOrder = append(p.saving.pipeOrder, c)
		p.state.Pipes = append(p.state.Pipes, q)
	}
	s.Index = c.index
	needReader, needWriter := s.readable() && c.reader < 0, s.writable() && c.writer < 0
	if !needReader && !needWriter {
		return nil
	}
	held, err := dup(fd)
	if err != nil {
		return err
	}
	p.saving.held.add(held)
	if needReader {
		c.reader = held
	}
	if needWriter {
		c.writer = held
	}
	return nil
}

func (p *Plugin) newPipe(f plugin.OpenFile, s *file, fd int) (*pipe, error) {
	q := &pipe{Mode: f.Stat.Mode & 0o7777}
	var err error
	if q.Capacity, err = unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err != nil {
		return nil, plugin.Refuse(f, "fcntl F_GETPIPE_SZ: %v", err)
	}
	if strings.HasPrefix(f.Link, "pipe:") {
		if isNotificationPipe(fd) {
			return nil, plugin.Refuse(f, "the watches of a notification pipe (pipe(2), O_NOTIFICATION_PIPE) are not kept")
		}
		return q, nil
	}
	q.Path = pathname(f.Link)
	if f.Stat.Nlink == 0 {
		q.Path = pathname(strings.TrimSuffix(f.Link, deletedSuffix))
		q.Deleted = true
		return q, nil
	}
	q.Directory, q.UID, q.GID = p.directoryOf(q.Path), int(f.Stat.Uid), int(f.Stat.Gid)
	return q, p.checkPath(f, s)
}

// finishPipes refuses pipes with an end outside the tree, and saves the
// content of the others.
func (p *Plugin) finishPipes() error {
	for _, c := range p.saving.pipeOrder {
		q := p.state.Pipes[c.index]
		if err := c.requireWhole(q); err != nil {
			return err
		}
		// The tree has both ends, and so may others: a user is not shown what the
		// processes of all others have open, so there is no asking.
		if c.reader >= 0 && c.writer >= 0 && p.given[c.first.Link] {
			return plugin.Refuse(c.first, "the launching command has inherited both of its ends, which whoever started that may use too, as make(1) does; launch --close-fds leaves them out")
		}
		if err := c.peek(q); err != nil {
			return plugin.Refuse(c.first, "content of the pipe: %v", err)
		}
	}
	return nil
}

// requireWhole tells an end that is closed everywhere, which the program may
// know and which comes back so, from one that somebody else holds.
func (c *pipeClaim) requireWhole(q *pipe) error {
	if c.reader < 0 {
		events, err := pollNow(c.writer, 0)
		if err != nil {
			return plugin.Refuse(c.first, "%v", err)
		}
		if events&unix.POLLERR == 0 {
			return plugin.Refuse(c.first, "its read end is held by %s", outsider(c.first.Link, unix.O_RDONLY))
		}
	}
	if c.writer >= 0 {
		return nil
	}
	events, err := pollNow(c.reader, 0)
	if err != nil {
		return plugin.Refuse(c.first, "%v", err)
	}
	if events&unix.POLLHUP != 0 {
		return nil
	}
	fresh, err := noWriter(c.reader)
	if err != nil {
		return plugin.Refuse(c.first, "%v", err)
	}
	if !fresh {
		return plugin.Refuse(c.first, "its write end is held by %s", outsider(c.first.Link, unix.O_WRONLY))
	}
	q.Fresh = !q.Deleted // without a name no writer can come
	return nil
}

// noWriter says whether an empty FIFO has no writer. poll(2) does not tell,
// for POLLHUP means a writer that has gone; but tee(2) of an empty pipe is an
// end of file without writers, and EAGAIN with some.
func noWriter(reader int) (bool, error) {
	r, w, err := privatePipe(0)
	if err != nil {
		return false, err
	}
	defer unix.Close(r)
	defer unix.Close(w)
	n, err := unix.Tee(reader, w, 1, unix.SPLICE_F_NONBLOCK)
	if errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("tee: %w", err)
	}
	return n == 0, nil
}

// peek copies the content without taking it, tee(2).
func (c *pipeClaim) peek(q *pipe) error {
	from := c.reader
	if from < 0 {
		if q.Path == "" {
			return nil // nobody can read it any more
		}
		// What is left in a FIFO is for its next reader.
		fd, err := unix.Open(procSelf(c.writer), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open for reading: %w", err)
		}
		defer unix.Close(fd)
		from = fd
	}
	size, err := unix.IoctlGetInt(from, unix.TIOCINQ)
	if err != nil {
		return fmt.Errorf("ioctl FIONREAD: %w", err)
	}
	if size == 0 {
		return nil
	}
	r, err := teeCopy(from, size, q.Capacity)
	if err != nil {
		return err
	}
	defer unix.Close(r)
	for left := size; left > 0; {
		// One read takes a whole stream, but only one packet, pipe(7).
		chunk := make([]byte, left)
		n, err := unix.Read(r, chunk)
		if err != nil || n == 0 {
			return fmt.Errorf("read of the copy: %d bytes of %d: %w", size-left, size, errOr(err))
		}
		q.Chunks = append(q.Chunks, chunk[:n:n])
		left -= n
	}
	q.Packets = len(q.Chunks) > 1
	if !q.Packets && size > 1 {
		q.Packets, err = isPacket(from, size, q.Capacity)
	}
	return err
}

// isPacket says whether what is in the pipe is one packet: a short read
// drops the rest of one.
func isPacket(from, size, capacity int) (bool, error) {
	r, err := teeCopy(from, size, capacity)
	if err != nil {
		return false, err
	}
	defer unix.Close(r)
	if _, err := unix.Read(r, make([]byte, 1)); err != nil {
		return false, fmt.Errorf("read of the copy: %w", err)
	}
	left, err := unix.IoctlGetInt(r, unix.TIOCINQ)
	if err != nil {
		return false, fmt.Errorf("ioctl FIONREAD: %w", err)
	}
	return left == 0, nil
}

// teeCopy returns the read end of a pipe with the same content.
func teeCopy(from, size, capacity int) (int, error) {
	r, w, err := privatePipe(capacity)
	if err != nil {
		return -1, err
	}
	defer unix.Close(w)
	n, err := unix.Tee(from, w, size, unix.SPLICE_F_NONBLOCK)
	if err != nil || int(n) != size {
		unix.Close(r)
		return -1, fmt.Errorf("tee: %d bytes of %d: %w%s", n, size, errOr(err), manyPipes(w, capacity))
	}
	return r, nil
}

// privatePipe makes a pipe that never blocks; capacity 0 is the usual one.
func privatePipe(capacity int) (r, w int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, -1, fmt.Errorf("pipe2: %w", err)
	}
	if capacity == 0 {
		return ends[0], ends[1], nil
	}
	if err := setCapacity(ends[1], capacity); err != nil && !errors.Is(err, unix.EPERM) { // it may be enough as it is
		unix.Close(ends[0])
		unix.Close(ends[1])
		return -1, -1, err
	}
	return ends[0], ends[1], nil
}

// manyPipes says why a pipe is smaller than it should be.
func manyPipes(fd, capacity int) string {
	if now, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err != nil || now >= capacity {
		return ""
	}
	return " (the user has more in pipes than /proc/sys/fs/pipe-user-pages-soft, pipe(7), and gets small ones only)"
}

// setOrKeepCapacity keeps what a user gets who has many pipes: the kernel gives smaller ones
// then, which hold what was in there, or refill says that they do not.
func (p *Plugin) setOrKeepCapacity(fd, capacity int) error {
	err := setCapacity(fd, capacity)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if !p.making.smallPipes {
		p.making.smallPipes = true
		p.host.Log().Warn().Err(err).Msg("pipes are smaller than they were" + manyPipes(fd, capacity))
	}
	return nil
}

// setCapacity needs CAP_SYS_RESOURCE above /proc/sys/fs/pipe-max-size, and is
// refused to a user who has more than pipe-user-pages-soft in pipes, pipe(7).
func setCapacity(fd, capacity int) error {
	if now, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && now == capacity {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, capacity); err != nil {
		return fmt.Errorf("fcntl F_SETPIPE_SZ %d: %w", capacity, err)
	}
	return nil
}

// pipeAnchors are the supervisor's own ends of a pipe that it has made, open
// until all descriptions are there.
type pipeAnchors struct {
	reader, writer int
	given          map[int]bool // anchors that a program has as its own
}

// reopenPipe makes the pipe once, and a description of one of its ends.
func (p *Plugin) reopenPipe(f plugin.OpenFile, s *file) (int, error) {
	q := p.state.Pipes[s.Index]
	if q.Fresh {
		return p.openFresh(q, s)
	}
	a, ok := p.making.pipes[s.Index]
	if !ok {
		var err error
		if a, err = p.makePipe(q); err != nil {
			return -1, err
		}
		p.making.pipes[s.Index] = a
	}
	end := a.reader
	if s.writable() {
		end = a.writer
	}
	if q.Path == "" && f.Flags&largeFile == 0 && !a.given[end] {
		// As pipe(2) made it: open(2) would add O_LARGEFILE, which F_GETFL shows.
		a.given[end] = true
		fd, err := dup(end)
		if err != nil {
			return -1, err
		}
		return withStatus(fd, s)
	}
	return reopenAnchor(end, s)
}

// makePipe makes a pipe or opens a FIFO, and fills it.
func (p *Plugin) makePipe(q *pipe) (pipeAnchors, error) {
	a, err := p.openAnchors(q)
	if err != nil {
		return a, err
	}
	p.making.ends.add(a.reader)
	if a.writer != a.reader {
		p.making.ends.add(a.writer)
	}
	if err := p.setOrKeepCapacity(a.writer, q.Capacity); err != nil {
		return a, err
	}
	if err := q.refill(a.writer); err != nil {
		return a, fmt.Errorf("%w%s", err, manyPipes(a.writer, q.Capacity))
	}
	return a, nil
}

func (p *Plugin) openAnchors(q *pipe) (pipeAnchors, error) {
	if q.Path == "" {
		r, w, err := privatePipe(0)
		return pipeAnchors{r, w, map[int]bool{}}, err
	}
	name := p.place(q.Path)
	if q.Deleted {
		fd, err := p.makeFIFO(q)
		return pipeAnchors{fd, fd, nil}, err
	}
	if err := p.requireFIFO(name, q); err != nil {
		return pipeAnchors{-1, -1, nil}, fmt.Errorf("%s: %w", q.Path, err)
	}
	// O_RDWR neither waits for a partner nor lets the ends do so, fifo(7).
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return pipeAnchors{-1, -1, nil}, fmt.Errorf("%s: open: %w", q.Path, err)
	}
	if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil && n > 0 {
		p.host.Log().Warn().Str("path", string(q.Path)).Int("bytes", n).
			Msg("the FIFO is in use: its content and the saved one are mixed")
	}
	return pipeAnchors{fd, fd, nil}, nil
}

// refill writes the content. In packet mode each write makes a packet.
func (q *pipe) refill(w int) error {
	if q.Packets {
		flags, err := unix.FcntlInt(uintptr(w), unix.F_GETFL, 0)
		if err != nil {
			return fmt.Errorf("fcntl F_GETFL: %w", err)
		}
		if _, err := unix.FcntlInt(uintptr(w), unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
			return fmt.Errorf("fcntl F_SETFL O_DIRECT: %w", err)
		}
	}
	for _, c := range q.Chunks {
		n, err := unix.Write(w, c)
		if err != nil || n != len(c) {
			return fmt.Errorf("refill of a pipe: %d bytes of %d: %w", n, len(c), errOr(err))
		}
	}
	return nil
}

// errShort stands for a count below what was asked, where the call gave no
// error.
var errShort = errors.New("short count")

func errOr(err error) error {
	if err != nil {
		return err
	}
	return errShort
}
