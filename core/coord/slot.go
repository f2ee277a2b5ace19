package coord

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/private"
)

const (
	socketSuffix = ".sock"
	lockSuffix   = ".lock"
	maxName      = 64   // characters of a name
	maxSuffix    = 9999 // of a name made unique
)

// slot is a claimed name: the lock file says that its owner is alive.
type slot struct {
	dir, name string
	lock      *os.File
	socket    os.FileInfo // of this owner; nil: it has none yet
}

func socketPath(dir, name string) string { return filepath.Join(dir, name+socketSuffix) }
func lockPath(dir, name string) string   { return filepath.Join(dir, name+lockSuffix) }

// checkName accepts what may stand in a path and on a command line: letters,
// digits and "._+-", not beginning with "." or "-".
func checkName(what, name string) error {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-"
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("%s %q: want 1 to %d characters", what, name, maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(safe, r) }):
		return fmt.Errorf("%s %q: want letters, digits and \"._+-\" only", what, name)
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("%s %q: must not begin with %q", what, name, name[0])
	}
	return nil
}

// claim takes name in dir, or with unique the first of name, name-2, name-3,
// ... that is free and fits, and listens on its socket. A name too long for a
// number is cut.
func claim(dir, name string, unique bool, fits func(name string) error) (*slot, *net.UnixListener, error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	for n := 1; n <= maxSuffix; n++ {
		try := name
		if n > 1 {
			suffix := fmt.Sprintf("-%d", n)
			try = name[:min(len(name), maxName-len(suffix))] + suffix
		}
		s, err := take(dir, try)
		if err == nil {
			if err = fits(try); err != nil {
				s.remove()
			}
		}
		if unique && (errors.Is(err, ErrNameTaken) || occupied(err)) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		ln, err := s.listen()
		if err != nil {
			s.remove()
			return nil, nil, err
		}
		return s, ln, nil
	}
	return nil, nil, fmt.Errorf("name %q: %w, and so are %d with a number", name, ErrNameTaken, maxSuffix)
}

// occupied says whether the folder of a name's generations is something else.
func occupied(err error) bool {
	_, is := errors.AsType[*image.FormatError](err)
	return is
}

// take locks the name, or fails with ErrNameTaken where its owner lives. The
// caller holds the directory's lock, so nobody removes the file meanwhile. An owner
// whose lock file was removed by others, as by those who clean up old files and
// spare sockets, still listens.
func take(dir, name string) (*slot, error) {
	path := lockPath(dir, name)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of name %q: %w", name, err)
	}
	err = flock(lock, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && answers(socketPath(dir, name)) {
		err = unix.EWOULDBLOCK
	}
	if err == nil {
		// Whatever the umask: other commands of the user open it.
		if err := lock.Chmod(0o600); err != nil {
			lock.Close()
			return nil, fmt.Errorf("lock of name %q: %w", name, err)
		}
		return &slot{dir: dir, name: name, lock: lock}, nil
	}
	lock.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("name %q: %w", name, ErrNameTaken)
	}
	return nil, fmt.Errorf("lock of name %q: flock %s: %w", name, path, err)
}

// answers says whether somebody listens on a socket: connect(2) has ECONNREFUSED
// for one that nobody has. A listener with a full queue, EAGAIN, is not waited for.
func answers(path string) bool {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // not known: nothing may be removed
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT)
}

// listen makes the socket anew. Nobody can connect before its mode is set:
// the directory is private.
func (s *slot) listen() (*net.UnixListener, error) {
	path := socketPath(s.dir, s.name)
	if limit := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > limit {
		return nil, fmt.Errorf("socket %s: path of %d bytes, unix(7) allows %d: choose a shorter name", path, len(path), limit)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("stale socket: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // slot.remove does, under the lock
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	if s.socket, err = os.Lstat(path); err != nil {
		ln.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return ln, nil
}

// hasSocket says whether the socket is still there, and no other in its place.
func (s *slot) hasSocket() bool {
	now, err := os.Lstat(socketPath(s.dir, s.name))
	return err == nil && os.SameFile(now, s.socket)
}

// hasLock says whether the lock file is still the one that is held.
func (s *slot) hasLock() bool { return private.IsAt(s.lock, lockPath(s.dir, s.name)) }

// removeSocket takes the socket away, but no other's. The caller holds the directory's lock.
func (s *slot) removeSocket() error {
	if s.socket != nil && !s.hasSocket() {
		return nil
	}
	return removeIfThere(socketPath(s.dir, s.name))
}

// remove takes the socket and the lock file away and frees the name. The
// caller holds the directory's lock.
func (s *slot) remove() error {
	err := s.removeSocket()
	if s.hasLock() {
		err = errors.Join(err, removeIfThere(lockPath(s.dir, s.name)))
	}
	return errors.Join(err, s.lock.Close())
}

// unlisten is removeSocket for a caller without the directory's lock.
func (s *slot) unlisten() error {
	unlock, err := lockDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return s.removeSocket()
}

// release is remove for a caller without the directory's lock.
func (s *slot) release() error {
	unlock, err := lockDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s.lock.Close()
	}
	if err != nil {
		return errors.Join(err, s.lock.Close())
	}
	defer unlock()
	return s.remove()
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lockDir makes claiming and removing names one at a time. It is held for a
// few system calls only.
func lockDir(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("runtime directory: flock %s: %w", dir, err)
	}
	return f.Close, nil
}

// flock is flock(2), again after a signal of the Go scheduler's.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// running returns the names in dir whose owners are alive and have a socket,
// sorted, and removes what dead ones have left. An owner that closes has
// removed its socket, and holds its name a little longer.
func running(dir string) ([]string, error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	var live []string
	for _, name := range namesOf(entries) {
		s, err := take(dir, name)
		switch {
		case errors.Is(err, ErrNameTaken):
			if _, err := os.Lstat(socketPath(dir, name)); err == nil {
				live = append(live, name)
			}
			continue
		case err == nil:
			err = s.remove()
		}
		if err != nil {
			return nil, fmt.Errorf("stale name %q: %w", name, err)
		}
	}
	return live, nil
}

// namesOf returns the names that entries of a runtime directory stand for.
func namesOf(entries []os.DirEntry) []string {
	var names []string
	for _, entry := range entries {
		for _, suffix := range []string{socketSuffix, lockSuffix} {
			name, ok := strings.CutSuffix(entry.Name(), suffix)
			if ok && checkName("name", name) == nil {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// dialSocket connects to a coordinator, makes sure whose it is, and returns its
// pid.
func dialSocket(ctx context.Context, path string) (*net.UnixConn, int, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, 0, err
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, 0, fmt.Errorf("connect %s: not a UNIX socket", path)
	}
	pid, err := checkPeer(uc)
	if err != nil {
		uc.Close()
		return nil, 0, fmt.Errorf("connect %s: %w", path, err)
	}
	return uc, pid, nil
}

// checkPeer refuses an other end that is neither the same user nor root, and
// returns its pid. The
// kernel noted its credentials at connect(2) or listen(2): SO_PEERCRED, unix(7).
func checkPeer(uc *net.UnixConn) (pid int, err error) {
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if optErr != nil {
		return 0, fmt.Errorf("getsockopt SO_PEERCRED: %w", optErr)
	}
	if uid := os.Geteuid(); cred.Uid != 0 && int(cred.Uid) != uid {
		return 0, fmt.Errorf("pid %d of uid %d is neither uid %d nor root", cred.Pid, cred.Uid, uid)
	}
	return int(cred.Pid), nil
}
