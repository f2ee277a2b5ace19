package file

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/missing"
)

// openFresh opens the read end of a FIFO that has no writer, without being
// one for a moment.
func (p *Plugin) openFresh(q *pipe, s *file) (int, error) {
	name := p.place(q.Path)
	if err := p.requireFIFO(name, q); err != nil {
		return -1, fmt.Errorf("%s: %w", q.Path, err)
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%s: open: %w", q.Path, err)
	}
	if err := p.setOrKeepCapacity(fd, q.Capacity); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", q.Path, err)
	}
	return withStatus(fd, s)
}

// requireFIFO makes sure that the name is a FIFO's. One that is gone is made again: who used it was of
// the tree, but for writers to come.
func (p *Plugin) requireFIFO(name string, q *pipe) error {
	var st unix.Stat_t
	err := unix.Stat(name, &st)
	if errors.Is(err, unix.ENOENT) {
		p.host.Log().Warn().Str("path", string(q.Path)).Msg("the FIFO is gone, and is made again")
		if err = p.named.nameFIFO(name, q); err != nil {
			return err
		}
		err = unix.Stat(name, &st)
	}
	if err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return errReplaced
	}
	return nil
}

// nameFIFO makes a FIFO with its name, which is taken back where the restart fails. Another restart may
// be faster.
func (n *named) nameFIFO(name string, q *pipe) error {
	if err := n.makeDir(path.Dir(name), q.Directory.Or(missing.Owner{UID: q.UID, GID: q.GID})); err != nil {
		return err
	}
	if err := unix.Mkfifo(name, 0o600); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return fmt.Errorf("mkfifo: %w", err)
	}
	made, err := os.Lstat(name)
	if err != nil {
		return err
	}
	n.undo = append(n.undo, func() error { return removeSame(name, made) })
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: open: %w", name, err)
	}
	defer unix.Close(fd)
	if os.Geteuid() == 0 {
		err = os.NewSyscallError("fchown", unix.Fchown(fd, q.UID, q.GID))
	}
	return errors.Join(err, os.NewSyscallError("fchmod", unix.Fchmod(fd, q.Mode)))
}

// makeFIFO makes a FIFO without a name.
func (p *Plugin) makeFIFO(q *pipe) (fd int, err error) {
	for _, dir := range p.directoriesFor(string(q.Path)) {
		if fd, err = createFIFO(dir, q.Mode); err == nil {
			return fd, nil
		}
	}
	return -1, fmt.Errorf("deleted FIFO %s: create: %w", q.Path, err)
}

func createFIFO(dir string, mode uint32) (int, error) {
	name := fmt.Sprintf("%s/.deleted-%016x", dir, rand.Uint64())
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return -1, err
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err := errors.Join(err, unix.Unlink(name)); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
