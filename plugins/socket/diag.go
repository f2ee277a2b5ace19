package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Of linux/sock_diag.h and linux/unix_diag.h; sock_diag(7).
const (
	udiagShowName  = 0x01
	udiagShowVFS   = 0x02
	udiagShowPeer  = 0x04
	udiagShowIcons = 0x08
	udiagShowRQLen = 0x10

	unixDiagName     = 0
	unixDiagVFS      = 1
	unixDiagPeer     = 2
	unixDiagIcons    = 3
	unixDiagRQLen    = 4
	unixDiagShutdown = 6

	unixDiagMsgSize = 16
	tcpListen       = 10 // TCP_LISTEN, used for every family
)

// diagnosis is what the kernel tells of a UNIX socket.
type diagnosis struct {
	state    uint8
	shutdown uint8
	name     []byte   // sun_path, without the zero byte that ends a path
	fileIno  uint32   // of the file it is bound to
	hasPeer  bool     // it was connected
	peer     uint32   // inode; 0 where the peer has been closed or was not accepted yet
	clients  []uint32 // of a listener: inodes of those that wait, 0 for one that was closed
	backlog  uint32   // of a listener; of others the memory of what they have sent and was not read
}

// diagnose asks for the socket with inode ino in the supervisor's network
// namespace.
func diagnose(ino uint32) (diagnosis, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return diagnosis{}, fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, diagRequest(ino), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return diagnosis{}, fmt.Errorf("sock_diag: %w", err)
	}
	buf := make([]byte, 64<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return diagnosis{}, fmt.Errorf("sock_diag: %w", err)
	}
	d, err := parseDiagnosis(buf[:n])
	if err != nil {
		return diagnosis{}, fmt.Errorf("sock_diag of inode %d: %w", ino, err)
	}
	return d, nil
}

// diagRequest is a nlmsghdr and a unix_diag_req.
func diagRequest(ino uint32) []byte {
	const size, anyCookie = 16 + 24, ^uint32(0)
	e := binary.NativeEndian
	b := e.AppendUint32(nil, size)
	b = e.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = e.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number, port id
	b = append(b, unix.AF_UNIX, 0, 0, 0)  // family, protocol
	b = e.AppendUint32(b, 0)              // states: not used for a single socket
	b = e.AppendUint32(b, ino)
	b = e.AppendUint32(b, udiagShowName|udiagShowVFS|udiagShowPeer|udiagShowIcons|udiagShowRQLen)
	b = e.AppendUint32(b, anyCookie)
	return e.AppendUint32(b, anyCookie)
}

func parseDiagnosis(raw []byte) (diagnosis, error) {
	messages, err := syscall.ParseNetlinkMessage(raw)
	if err != nil {
		return diagnosis{}, err
	}
	if len(messages) != 1 {
		return diagnosis{}, fmt.Errorf("%d messages, want one", len(messages))
	}
	m := messages[0]
	switch {
	case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
		return diagnosis{}, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
	case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < unixDiagMsgSize:
		return diagnosis{}, fmt.Errorf("message of type %d with %d bytes", m.Header.Type, len(m.Data))
	}
	d := diagnosis{state: m.Data[2]}
	return d, d.parseAttributes(m.Data[unixDiagMsgSize:])
}

// parseAttributes walks the rtattrs, rtnetlink(7).
func (d *diagnosis) parseAttributes(b []byte) error {
	e := binary.NativeEndian
	for len(b) >= unix.SizeofRtAttr {
		size, typ := int(e.Uint16(b)), e.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			return fmt.Errorf("attribute %d of %d bytes, %d are left", typ, size, len(b))
		}
		if err := d.set(typ, b[unix.SizeofRtAttr:size]); err != nil {
			return err
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

var errShortAttribute = errors.New("attribute is too short")

func (d *diagnosis) set(typ uint16, val []byte) error {
	wanted := map[uint16]int{unixDiagVFS: 8, unixDiagPeer: 4, unixDiagRQLen: 8, unixDiagShutdown: 1}
	if len(val) < wanted[typ] {
		return fmt.Errorf("%w: type %d with %d bytes", errShortAttribute, typ, len(val))
	}
	e := binary.NativeEndian
	switch typ {
	case unixDiagName:
		d.name = trimName(val)
	case unixDiagVFS:
		d.fileIno = e.Uint32(val)
	case unixDiagPeer:
		d.hasPeer, d.peer = true, e.Uint32(val)
	case unixDiagRQLen:
		d.backlog = e.Uint32(val[4:])
	case unixDiagIcons:
		for ; len(val) >= 4; val = val[4:] {
			d.clients = append(d.clients, e.Uint32(val))
		}
	case unixDiagShutdown:
		d.shutdown = val[0]
	}
	return nil
}

// trimName cuts the zero byte that ends a path; an abstract name, which
// begins with one, may have more of them, and all count.
func trimName(name []byte) []byte {
	if len(name) > 0 && name[0] != 0 && name[len(name)-1] == 0 {
		name = name[:len(name)-1]
	}
	return append([]byte(nil), name...)
}
