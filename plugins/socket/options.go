package socket

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options that x/sys does not name; asm-generic/socket.h.
const (
	soPassPIDFD   = 76
	soRcvPriority = 82
	soPassRights  = 83
)

// kept are the options of SOL_SOCKET with a number as value that can be both
// read and set, in the order in which they are set. What a family does not
// have is left out for it.
var kept = [...]int{
	unix.SO_DEBUG, unix.SO_REUSEADDR, unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_KEEPALIVE, unix.SO_OOBINLINE,
	unix.SO_NO_CHECK, unix.SO_PRIORITY, unix.SO_REUSEPORT, unix.SO_PASSCRED, unix.SO_RCVLOWAT,
	unix.SO_TIMESTAMP, unix.SO_TIMESTAMPNS, unix.SO_TIMESTAMPING, unix.SO_TIMESTAMP_NEW, unix.SO_TIMESTAMPNS_NEW,
	unix.SO_TIMESTAMPING_NEW, unix.SO_PASSSEC, unix.SO_MARK, unix.SO_RXQ_OVFL, unix.SO_WIFI_STATUS, unix.SO_PEEK_OFF,
	unix.SO_NOFCS, unix.SO_SELECT_ERR_QUEUE, unix.SO_BUSY_POLL, unix.SO_ZEROCOPY, unix.SO_PREFER_BUSY_POLL,
	unix.SO_RESERVE_MEM, unix.SO_TXREHASH, unix.SO_RCVMARK, soPassPIDFD, soRcvPriority,
	soPassRights,
}

func isKept(opt int) bool { return slices.Contains(kept[:], opt) }

// Bits of SO_BUF_LOCK: the program has set the size of a buffer.
const (
	sendBufferLock    = 1
	receiveBufferLock = 2
)

func saveOptions(fd, typ int) (o options, err error) {
	o.Values = make(map[int]int)
	for _, opt := range kept {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		if unsupported(err) {
			continue
		}
		if err != nil {
			return options{}, fmt.Errorf("getsockopt %d: %w", opt, err)
		}
		o.Values[opt] = v
	}
	if o.SendTimeout, err = getTimeout(fd, unix.SO_SNDTIMEO); err != nil {
		return options{}, err
	}
	if o.ReceiveTimeout, err = getTimeout(fd, unix.SO_RCVTIMEO); err != nil {
		return options{}, err
	}
	if err := o.saveOthers(fd); err != nil {
		return options{}, err
	}
	return o, o.saveBuffers(fd, typ)
}

// saveOthers reads the options whose value is no number.
func (o *options) saveOthers(fd int) error {
	l, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER)
	if err != nil && !unsupported(err) {
		return os.NewSyscallError("getsockopt SO_LINGER", err)
	}
	if err == nil && (l.Onoff != 0 || l.Linger != 0) {
		o.Linger = &linger{On: l.Onoff != 0, Seconds: int(l.Linger)}
	}
	device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err != nil && !unsupported(err) {
		return os.NewSyscallError("getsockopt SO_BINDTODEVICE", err)
	}
	o.Device = strings.TrimRight(device, "\x00")
	rate, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE)
	if err != nil && !unsupported(err) {
		return os.NewSyscallError("getsockopt SO_MAX_PACING_RATE", err)
	}
	if err == nil && rate != ^uint64(0) {
		o.MaxPacingRate = rate
	}
	if o.TxTime, err = getTxTime(fd); err != nil {
		return err
	}
	if o.Filter, err = getFilter(fd); err != nil {
		return err
	}
	locked, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER)
	if err != nil && !unsupported(err) {
		return os.NewSyscallError("getsockopt SO_LOCK_FILTER", err)
	}
	o.FilterLocked = locked != 0
	return nil
}

// unsupported tells an option that this kernel, or this type, does not have.
func unsupported(err error) bool {
	return errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP)
}

func getTimeout(fd, opt int) (time.Duration, error) {
	tv, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, opt)
	if err != nil {
		return 0, fmt.Errorf("getsockopt %d: %w", opt, err)
	}
	return time.Duration(tv.Nano()), nil
}

func (o *options) saveBuffers(fd, typ int) error {
	send, receive, err := bufferSizes(fd)
	if err != nil {
		return err
	}
	lock, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if unsupported(err) { // before Linux 5.14
		lock, err = guessBufferLock(fd, send, receive, typ, mostBuffer)
	}
	if err != nil {
		return fmt.Errorf("getsockopt SO_BUF_LOCK: %w", err)
	}
	if lock&sendBufferLock != 0 {
		o.SendBuffer = send
	}
	if lock&receiveBufferLock != 0 {
		o.ReceiveBuffer = receive
	}
	return nil
}

func bufferSizes(fd int) (send, receive int, err error) {
	if send, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil {
		return 0, 0, fmt.Errorf("getsockopt SO_SNDBUF: %w", err)
	}
	if receive, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil {
		return 0, 0, fmt.Errorf("getsockopt SO_RCVBUF: %w", err)
	}
	return send, receive, nil
}

// guessBufferLock takes a size that a new socket does not have for one that
// was set, but for sizes to which only TCP itself comes: it chooses them anew all
// the time, tcp(7), and beyond the most that setsockopt(2) sets.
func guessBufferLock(fd, send, receive, typ int, most func(limit string) int) (lock int, err error) {
	domain, protocol := unix.AF_INET, unix.IPPROTO_TCP
	p, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	tcp := err == nil && p == protocol && typ == unix.SOCK_STREAM
	if !tcp {
		domain, protocol = unix.AF_UNIX, 0
	}
	other, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return 0, err
	}
	defer unix.Close(other)
	defaultSend, defaultReceive, err := bufferSizes(other)
	if err != nil {
		return 0, err
	}
	if send != defaultSend && !(tcp && send > most("wmem_max")) {
		lock |= sendBufferLock
	}
	if receive == defaultReceive || tcp && receive > most("rmem_max") {
		return lock, nil
	}
	grows := false
	if tcp {
		grows, err = receiveGrows(fd, receive)
	}
	if !grows {
		lock |= receiveBufferLock
	}
	return lock, err
}

// receiveGrows says whether a receive buffer of TCP is not of a set size: SO_RCVLOWAT
// enlarges it then, here by two bytes, and is not cut to half of it
// (net/ipv4/tcp.c, tcp_set_rcvlowat). One as large as net.ipv4.tcp_rmem allows has grown.
func receiveGrows(fd, size int) (bool, error) {
	if limits, err := os.ReadFile("/proc/sys/net/ipv4/tcp_rmem"); err == nil {
		if f := strings.Fields(string(limits)); len(f) == 3 && f[2] == strconv.Itoa(size) {
			return true, nil
		}
	}
	low, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT)
	if err != nil {
		return false, os.NewSyscallError("getsockopt SO_RCVLOWAT", err)
	}
	err = setReceiveLow(fd, size/2+1)
	got, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT)
	return got > size/2, errors.Join(err, os.NewSyscallError("getsockopt SO_RCVLOWAT", err2), setReceiveLow(fd, low))
}

// mostBuffer is the size that a program can set, socket(7). A network namespace of
// its own does not show it: the usual one then, of kernels that need to be asked.
func mostBuffer(limit string) int {
	n := 212992
	if b, err := os.ReadFile("/proc/sys/net/core/" + limit); err == nil {
		if set, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			n = set
		}
	}
	return 2 * n // the kernel doubles what is set
}

// makeRoom lets fd send as much as it could before. It comes before a refill,
// and apply behind it, since the program may have lowered the size later.
func (o options) makeRoom(fd int) error {
	send, _, err := bufferSizes(fd)
	if err != nil || o.SendBuffer <= send {
		return err
	}
	return setBuffer(fd, unix.SO_SNDBUF, o.SendBuffer)
}

// setBuffer sets half of size, which the kernel doubles.
func setBuffer(fd, opt, size int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, size/2); err != nil {
		return fmt.Errorf("setsockopt %d to %d: %w", opt, size/2, err)
	}
	return nil
}

// apply sets what differs from a new socket.
func (o options) apply(fd int) error {
	for _, opt := range kept {
		want, saved := o.Values[opt]
		if !saved {
			continue
		}
		have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		if err == nil && have == want {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, want); err != nil {
			return fmt.Errorf("setsockopt %d to %d: %w", opt, want, err)
		}
	}
	for opt, timeout := range map[int]time.Duration{unix.SO_SNDTIMEO: o.SendTimeout, unix.SO_RCVTIMEO: o.ReceiveTimeout} {
		tv := unix.NsecToTimeval(int64(timeout))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &tv); err != nil {
			return fmt.Errorf("setsockopt %d to %v: %w", opt, timeout, err)
		}
	}
	if err := o.applyBuffers(fd); err != nil {
		return err
	}
	return o.applyOthers(fd)
}

func (o options) applyBuffers(fd int) error {
	for opt, size := range map[int]int{unix.SO_SNDBUF: o.SendBuffer, unix.SO_RCVBUF: o.ReceiveBuffer} {
		if size == 0 {
			continue
		}
		if err := setBuffer(fd, opt, size); err != nil {
			return err
		}
	}
	return nil
}

func (o options) applyOthers(fd int) error {
	if l := o.Linger; l != nil {
		value := unix.Linger{Linger: int32(l.Seconds)}
		if l.On {
			value.Onoff = 1
		}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &value); err != nil {
			return os.NewSyscallError("setsockopt SO_LINGER", err)
		}
	}
	if err := o.applyDevice(fd); err != nil {
		return err
	}
	if o.MaxPacingRate != 0 {
		if err := unix.SetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, o.MaxPacingRate); err != nil {
			return os.NewSyscallError("setsockopt SO_MAX_PACING_RATE", err)
		}
	}
	if err := o.TxTime.apply(fd); err != nil {
		return err
	}
	if len(o.Filter) > 0 {
		if err := attachFilter(fd, o.Filter); err != nil {
			return err
		}
	}
	if o.FilterLocked {
		return os.NewSyscallError("setsockopt SO_LOCK_FILTER", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
	}
	return nil
}

// applyDevice binds fd to the interface, unless it is already: only a
// privileged user may do that twice (socket(7)).
func (o options) applyDevice(fd int) error {
	if o.Device == "" {
		return nil
	}
	have, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err == nil && strings.TrimRight(have, "\x00") == o.Device {
		return nil
	}
	if err := unix.BindToDevice(fd, o.Device); err != nil {
		return fmt.Errorf("setsockopt SO_BINDTODEVICE to %q: %w", o.Device, err)
	}
	return nil
}
