package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/procparse"
)

// look is a look at what is queued in a UNIX socket. Nothing is taken out.
type look struct {
	fd, typ int
	ended   bool        // no more can come
	host    map[int]int // pids as the program sees them, by host pid
	hold    func(fd int) (id int, err error)
}

// option sets an option of SOL_SOCKET while fn runs, which may change it too.
func (l look) option(opt, value int, fn func() error) error {
	return withOption(l.fd, unix.SOL_SOCKET, opt, value, fn)
}

func withOption(fd, level, opt, value int, fn func() error) error {
	old, err := unix.GetsockoptInt(fd, level, opt)
	if err != nil {
		return fmt.Errorf("getsockopt %d of level %d: %w", opt, level, err)
	}
	if err := unix.SetsockoptInt(fd, level, opt, value); err != nil {
		return fmt.Errorf("setsockopt %d of level %d: %w", opt, level, err)
	}
	err = fn()
	if back := unix.SetsockoptInt(fd, level, opt, old); back != nil {
		err = errors.Join(err, fmt.Errorf("setsockopt %d of level %d: %w", opt, level, back))
	}
	return err
}

// stamped has messages carry a time where that tells an empty one from the
// end of a connection.
func (l look) stamped(fn func() error) error {
	if l.typ != unix.SOCK_SEQPACKET || !l.ended {
		return fn()
	}
	// They exclude each other: SO_TIMESTAMP would end SO_TIMESTAMPNS.
	for _, opt := range []int{unix.SO_TIMESTAMPNS, unix.SO_TIMESTAMP_NEW, unix.SO_TIMESTAMPNS_NEW} {
		if on, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, opt); err == nil && on != 0 {
			return fn()
		}
	}
	return l.option(unix.SO_TIMESTAMP, 1, fn)
}

// stream returns the size bytes that are queued, by what one call can read.
// It never looks past the end, which would take a pending error.
func (l look) stream(size int) (queue []message, err error) {
	if size == 0 {
		return nil, nil
	}
	buf := make([]byte, size)
	err = l.option(unix.SO_PEEK_OFF, 0, func() error {
		for off := 0; off < size; {
			run, err := l.run(off, buf[:size-off])
			if err != nil {
				return err
			}
			for _, m := range run {
				off += len(m.Data)
				queue = appendRun(queue, m)
			}
		}
		return nil
	})
	return queue, err
}

// run returns what one call can read at off. Descriptors end it, and came with
// its last bytes: from where on, only shorter looks tell.
func (l look) run(off int, buf []byte) ([]message, error) {
	r, err := l.receive(off, buf)
	if err != nil {
		return nil, err
	}
	if r.n == 0 {
		r.close()
		return nil, fmt.Errorf("%d bytes are queued that cannot be seen", len(buf))
	}
	m, err := l.keep(r, buf)
	if err != nil || len(m.Files) == 0 {
		return []message{m}, err
	}
	without, with := 0, r.n // bytes that come without descriptors, and with them
	for with-without > 1 {
		size := (without + with) / 2
		r, err := l.receive(off, make([]byte, size))
		if err != nil {
			return nil, err
		}
		r.close()
		if len(r.rights) > 0 {
			with = size
		} else {
			without = size
		}
	}
	if without == 0 {
		return []message{m}, nil
	}
	plain := message{Data: m.Data[:without], Sender: m.Sender}
	m.Data = m.Data[without:]
	return []message{plain, m}, nil
}

// appendRun joins what reads the same joined.
func appendRun(queue []message, m message) []message {
	if n := len(queue); n > 0 && len(m.Files) == 0 && len(queue[n-1].Files) == 0 && m.Sender == nil && queue[n-1].Sender == nil {
		queue[n-1].Data = append(queue[n-1].Data, m.Data...)
		return queue
	}
	return append(queue, m)
}

// messages looks until there is no more. At the end of a connection recvmsg
// returns 0 as it does for an empty message.
func (l look) messages() (queue []message, err error) {
	buf := make([]byte, 64<<10)
	err = l.stamped(func() error {
		return l.option(unix.SO_PEEK_OFF, 0, func() error {
			for off := 0; ; {
				r, err := l.receive(off, buf)
				switch {
				case errors.Is(err, unix.EAGAIN):
					return nil
				case err != nil:
					return err
				case r.n == 0 && l.ended && !r.stamp:
					return nil
				case r.flags&unix.MSG_TRUNC != 0:
					r.close()
					buf = make([]byte, 2*len(buf))
					continue
				}
				m, err := l.keep(r, buf)
				if err != nil {
					return err
				}
				queue = append(queue, m)
				off += r.n
			}
		})
	})
	return queue, err
}

// received is what recvmsg(2) returned.
type received struct {
	n, flags int
	from     []byte // sun_path
	rights   []int  // our descriptors
	pidfd    int    // -1: none
	sender   *unix.Ucred
	stamp    bool
}

func (r *received) close() {
	for _, fd := range r.rights {
		unix.Close(fd)
	}
	if r.pidfd >= 0 {
		unix.Close(r.pidfd)
	}
}

// receive looks at what is queued behind the first off bytes; at the first
// message for -1.
func (l look) receive(off int, buf []byte) (r received, err error) {
	if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, off); err != nil {
		return r, os.NewSyscallError("setsockopt SO_PEEK_OFF", err)
	}
	raw, err := recvmsg(l.fd, buf, controlSize, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return r, os.NewSyscallError("recvmsg MSG_PEEK", err)
	}
	r = received{n: raw.n, flags: raw.flags, pidfd: -1}
	if l.typ == unix.SOCK_DGRAM && len(raw.from) > 2 {
		r.from = trimName(raw.from[2:])
	}
	if err := r.parseControl(raw.control); err != nil {
		r.close()
		return r, err
	}
	if raw.flags&unix.MSG_CTRUNC != 0 {
		r.close()
		return r, errors.New("control messages are longer than this kernel can have")
	}
	return r, nil
}

// controlSize has room for SCM_MAX_FD descriptors and what else may come.
const controlSize = 4 << 10

// scmPIDFD is SCM_PIDFD of linux/socket.h.
const scmPIDFD = 4

func (r *received) parseControl(control []byte) error {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return fmt.Errorf("control messages: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch m.Header.Type {
		case unix.SCM_RIGHTS:
			if r.rights, err = unix.ParseUnixRights(&m); err != nil {
				return fmt.Errorf("SCM_RIGHTS: %w", err)
			}
		case unix.SCM_CREDENTIALS:
			if r.sender, err = unix.ParseUnixCredentials(&m); err != nil {
				return fmt.Errorf("SCM_CREDENTIALS: %w", err)
			}
		case scmPIDFD:
			if len(m.Data) >= 4 {
				r.pidfd = int(int32(binary.NativeEndian.Uint32(m.Data)))
			}
		default:
			r.stamp = true
		}
	}
	return nil
}

var errSender = errors.New("data is queued with the credentials of a sender that has ended or is outside the computation")

// keep makes r, of which buf is the data, a message, and closes it.
func (l look) keep(r received, buf []byte) (m message, err error) {
	defer r.close()
	m = message{Data: bytes.Clone(buf[:r.n]), From: r.from}
	for _, fd := range r.rights {
		id, err := l.hold(fd)
		if err != nil {
			return m, fmt.Errorf("a descriptor in flight: %w", err)
		}
		m.Files = append(m.Files, id)
	}
	sender := r.sender
	if sender == nil && r.pidfd >= 0 {
		if sender, err = senderOf(r.pidfd); err != nil {
			return m, err
		}
	}
	if sender == nil || sender.Pid == 0 {
		return m, nil // nothing was noted when it was sent
	}
	pid, ok := l.host[int(sender.Pid)]
	if !ok {
		return m, errSender
	}
	m.Sender = &credentials{PID: pid, UID: sender.Uid, GID: sender.Gid}
	return m, nil
}

// senderOf returns the process of a pidfd with the ids of the supervisor: its
// real ones cannot be seen, here and by the program.
func senderOf(pidfd int) (*unix.Ucred, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return nil, err
	}
	info, err := procparse.ParseFDInfo(raw)
	if err != nil {
		return nil, fmt.Errorf("fdinfo of a sender's pidfd: %w", err)
	}
	pid, err := strconv.Atoi(info.Field("Pid"))
	if err != nil {
		return nil, fmt.Errorf("fdinfo of a sender's pidfd: %w", err)
	}
	if pid <= 0 {
		return nil, errSender
	}
	return &unix.Ucred{Pid: int32(pid), Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}, nil
}
