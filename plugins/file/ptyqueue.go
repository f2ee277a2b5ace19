package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// lineBuffer is the most that the line discipline holds: N_TTY_BUF_SIZE of
// the kernel, less the one byte that stays free.
const lineBuffer = 4095

// ptyIn is what was written to the master and not yet read from the slave.
type ptyIn struct {
	// Data has gone through the line discipline: edited and echoed.
	Data []byte `json:"data,omitempty"`
	// EOF says that each zero byte in Data is an end-of-file mark of
	// canonical mode (^D), not a byte.
	EOF bool `json:"eof,omitempty"`
	// Rest waits, raw, for room in the line discipline.
	Rest []byte `json:"rest,omitempty"`
}

// queues are the supervisor's own descriptors of a pty, by which it reaches
// the data in both directions. The slave has O_NONBLOCK.
type queues struct{ master, slave int }

// refillPatience is how long the line discipline is waited for, which takes what it is given
// within microseconds.
const refillPatience = 10 * time.Second

// peek takes what is unread, saves it in t and puts it back at once. The
// steps that could fail come before the first byte is taken; from then on it
// goes on where the checkpoint is given up.
func (q queues) peek(ctx context.Context, t *pty) error {
	if err := errors.Join(ctx.Err(), q.requireSettled(t)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refillPatience)
	defer cancel()
	if t.Packet {
		// Data would be mixed with status bytes, and our own settings
		// would make more of them.
		if err := unix.IoctlSetPointerInt(q.master, unix.TIOCPKT, 0); err != nil {
			return fmt.Errorf("ioctl TIOCPKT: %w", err)
		}
	}
	err := q.drain(t)
	err = errors.Join(err, q.refill(ctx, t))
	if t.Packet {
		err = errors.Join(err, unix.IoctlSetPointerInt(q.master, unix.TIOCPKT, 1))
	}
	return err
}

// requireSettled refuses states in which data could not be put back.
func (q queues) requireSettled(t *pty) error {
	master, err := pollNow(q.master, unix.POLLIN|unix.POLLPRI)
	if err != nil {
		return err
	}
	slave, err := pollNow(q.slave, unix.POLLIN|unix.POLLOUT)
	if err != nil {
		return err
	}
	switch {
	case t.Packet && master&unix.POLLPRI != 0:
		return errors.New("an unread status byte of packet mode")
	case slave&unix.POLLOUT == 0:
		return errors.New("its output is stopped (^S), or full")
	case t.Termios.Lflag&unix.EXTPROC != 0 && slave&unix.POLLIN != 0:
		return errors.New("unread input in EXTPROC mode")
	}
	return nil
}

// raw are settings under which nothing is changed, echoed or waited for.
func (t termios) raw() termios {
	r := t
	r.Iflag, r.Oflag, r.Lflag = 0, 0, 0
	r.Cc = [len(r.Cc)]uint8{}
	return r
}

// drain takes all that is unread.
func (q queues) drain(t *pty) error {
	canonical := t.Termios.Lflag&unix.ICANON != 0
	lines, err := unix.IoctlGetInt(q.slave, unix.TIOCINQ)
	if err != nil {
		return fmt.Errorf("ioctl TIOCINQ: %w", err)
	}
	if t.Output, err = readAll(q.master); err != nil {
		return err
	}
	if err := t.Termios.raw().set(q.slave); err != nil {
		return err
	}
	// In raw mode TIOCINQ counts all that the line discipline has taken.
	processed, err := unix.IoctlGetInt(q.slave, unix.TIOCINQ)
	if err != nil {
		return fmt.Errorf("ioctl TIOCINQ: %w", err)
	}
	all, err := readAll(q.slave)
	processed = min(processed, len(all))
	t.Input = ptyIn{Data: all[:processed:processed], Rest: all[processed:]}
	if err != nil {
		return err
	}
	if canonical {
		t.Input.EOF, err = zerosAreEOF(t.Input.Data, lines, t.Termios)
	}
	return err
}

// readAll reads until nothing is left. poll(2) first: the descriptor may be
// the program's own, without O_NONBLOCK.
func readAll(fd int) ([]byte, error) {
	var all []byte
	b := make([]byte, 4096)
	for {
		events, err := pollNow(fd, unix.POLLIN)
		if err != nil || events&unix.POLLIN == 0 {
			return all, err
		}
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return all, fmt.Errorf("read of a terminal: %w", err)
		}
		if n == 0 {
			return all, nil
		}
		all = append(all, b[:n]...)
	}
}

// zerosAreEOF tells the marks of ^D in canonical input, which read as zero
// bytes, from zero bytes that were typed. lines is what TIOCINQ said: the
// bytes of complete lines, without the marks.
func zerosAreEOF(data []byte, lines int, t termios) (bool, error) {
	if bytes.IndexByte(data, 0) < 0 {
		return false, nil
	}
	complete := endOfLines(data, t, true)
	if complete-bytes.Count(data[:complete], []byte{0}) == lines {
		return true, nil
	}
	if endOfLines(data, t, false) == lines {
		return false, nil
	}
	return true, errors.New("zero bytes and end-of-file marks in unread input cannot be told apart")
}

// endOfLines returns the length of the complete lines in canonical input.
func endOfLines(data []byte, t termios, zeroEnds bool) int {
	ends := append(t.lineEnds(), '\n')
	if zeroEnds {
		ends = append(ends, 0)
	}
	for n := len(data); n > 0; n-- {
		if bytes.IndexByte(ends, data[n-1]) >= 0 {
			return n
		}
	}
	return 0
}

// lineEnds are the further characters that end a line, termios(3).
func (t termios) lineEnds() []byte {
	var ends []byte
	if c := t.Cc[unix.VEOL]; c != 0 {
		ends = append(ends, c)
	}
	if c := t.Cc[unix.VEOL2]; c != 0 && t.Lflag&unix.IEXTEN != 0 {
		ends = append(ends, c)
	}
	return ends
}

// refill puts the data of t in the queues, which are empty, and sets the
// terminal as it was. What waited raw goes in last: it is edited and echoed
// when there is room, by the program's own settings.
func (q queues) refill(ctx context.Context, t *pty) error {
	mode := t.refillMode()
	err := mode.set(q.slave)
	if err == nil {
		err = q.refillInput(ctx, t.Input, mode)
		err = errors.Join(err, writeChunks(q.slave, t.Output))
	}
	err = errors.Join(err, t.Termios.set(q.slave))
	return errors.Join(err, writeChunks(q.master, t.Input.Rest))
}

// refillMode are settings under which input that was already edited stays as
// it is. They are canonical even for raw input: a change between both makes
// the kernel forget where lines end, so it must not follow canonical input,
// and may follow raw input. ECHO shows when a byte has arrived.
func (t *pty) refillMode() termios {
	mode := t.Termios.raw()
	mode.Lflag = unix.ICANON | unix.ECHO | unix.IEXTEN
	if t.Termios.Lflag&unix.ICANON != 0 {
		for i, c := range t.Termios.lineEnds() {
			mode.Cc[[]int{unix.VEOL, unix.VEOL2}[i]] = c
		}
	}
	return mode
}

// refillInput writes edited input through the master, and waits until the
// line discipline has taken it: else what comes later in the queue of the
// kernel would be edited by the program's settings.
func (q queues) refillInput(ctx context.Context, in ptyIn, mode termios) error {
	const chunkSize = 128 // so that each leaves byte values for control characters
	written := 0
	for chunk := range slices.Chunk(in.Data, chunkSize) {
		written += len(chunk)
		if !in.EOF {
			if err := q.echoed(ctx, chunk, len(chunk)); err != nil {
				return err
			}
			continue
		}
		mode.Cc[unix.VEOF] = mode.unused(chunk)
		if err := mode.set(q.slave); err != nil {
			return err
		}
		marks := bytes.Count(chunk, []byte{0}) // which have no echo
		typed := bytes.ReplaceAll(chunk, []byte{0}, []byte{mode.Cc[unix.VEOF]})
		if err := q.echoed(ctx, typed, len(chunk)-marks); err != nil {
			return err
		}
		if chunk[len(chunk)-1] == 0 && written < lineBuffer {
			if err := q.confirmMark(ctx, mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// echoed writes input and waits for n bytes of echo.
func (q queues) echoed(ctx context.Context, input []byte, n int) error {
	if err := writeChunks(q.master, input); err != nil {
		return err
	}
	return q.discardEchoes(ctx, n)
}

// unused returns a byte that is neither in data nor has a meaning in t.
func (t termios) unused(data []byte) byte {
	taken := append(t.lineEnds(), '\n', 0, t.Cc[unix.VEOF])
	c := byte(1)
	for bytes.IndexByte(taken, c) >= 0 || bytes.IndexByte(data, c) >= 0 {
		c++
	}
	return c
}

// confirmMark waits for an end-of-file mark, which has no echo, behind which
// no line has begun. VREPRINT then echoes itself and a newline, and leaves no
// byte in the input.
func (q queues) confirmMark(ctx context.Context, mode termios) error {
	mode.Cc[unix.VREPRINT] = mode.unused(nil)
	if err := mode.set(q.slave); err != nil {
		return err
	}
	return q.echoed(ctx, []byte{mode.Cc[unix.VREPRINT]}, 2)
}

// discardEchoes reads n bytes from the master, waiting for them.
func (q queues) discardEchoes(ctx context.Context, n int) error {
	for n > 0 {
		if err := waitReadable(ctx, q.master); err != nil {
			return err
		}
		got, err := unix.Read(q.master, make([]byte, n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read of an echo: %w", err)
		}
		n -= got
	}
	return nil
}

// writeChunks writes b to a terminal. The descriptor may be the program's own,
// without O_NONBLOCK: poll(2) tells of room for one small chunk.
func writeChunks(fd int, b []byte) error {
	const chunkSize = 64
	for len(b) > 0 {
		events, err := pollNow(fd, unix.POLLOUT)
		if err != nil {
			return err
		}
		if events&unix.POLLOUT == 0 {
			return fmt.Errorf("refill of a terminal: no room for the last %d bytes", len(b))
		}
		n, err := unix.Write(fd, b[:min(len(b), chunkSize)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("refill of a terminal: %w", err)
		}
		b = b[n:]
	}
	return nil
}

func nativeInt32(n int) []byte {
	return binary.NativeEndian.AppendUint32(nil, uint32(n))
}
