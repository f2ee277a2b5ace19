package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// States of a TCP socket, net/tcp_states.h.
const (
	tcpEstablished = 1
	tcpSynSent     = 2
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpClose       = 7
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpClosing     = 11
	tcpSynRecv     = 3
	tcpTimeWait    = 6
)

// inetDiagnosis is inet_diag_msg of linux/inet_diag.h. The inode is 0 where no
// process has the socket: it is not accepted yet, or was closed.
type inetDiagnosis struct {
	state         uint8
	local, remote netip.AddrPort
	inode         uint32
}

const (
	inetDiagReqSize = 56
	inetDiagMsgSize = 72
)

// findTCP asks for the socket that is connected from local to remote in the
// supervisor's network namespace. found is false where there is none.
func findTCP(local, remote netip.AddrPort) (d inetDiagnosis, found bool, err error) {
	local, remote = unmapped(local), unmapped(remote)
	raw, err := askInet(inetDiagRequest(local, remote, unix.NLM_F_REQUEST, ^uint32(0)))
	if err != nil {
		return d, false, err
	}
	all, err := parseInetDiag(raw)
	if errors.Is(err, unix.ENOENT) {
		return d, false, nil
	}
	if err != nil || len(all) != 1 {
		return d, false, fmt.Errorf("sock_diag of %s to %s: %d answers, %w", local, remote, len(all), err)
	}
	d = all[0]
	return d, d.state != tcpListen, nil
}

// connecting returns the sockets of a family that wait for the answer of a
// connect(2), by inode.
func connecting(family int) (map[uint32]inetDiagnosis, error) {
	all, err := listTCP(family, 0, 1<<tcpSynSent)
	if err != nil {
		return nil, err
	}
	byInode := make(map[uint32]inetDiagnosis, len(all))
	for _, d := range all {
		byInode[d.inode] = d
	}
	return byInode, nil
}

// unmapped turns an IPv4 address within IPv6 into the former.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// askInet sends a request and returns all that comes back, to the end of a dump.
func askInet(request []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("sock_diag: %w", err)
		}
		all = append(all, buf[:n]...)
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("sock_diag: %w", err)
		}
		for _, m := range messages {
			if m.Header.Flags&unix.NLM_F_MULTI == 0 || m.Header.Type == unix.NLMSG_DONE {
				return all, nil
			}
		}
		if len(messages) == 0 {
			return all, nil
		}
	}
}

// inetDiagRequest is a nlmsghdr and an inet_diag_req_v2. It asks as the peer
// of remote to local would: the source is the socket's own address.
func inetDiagRequest(local, remote netip.AddrPort, flags uint16, states uint32) []byte {
	e, big := binary.NativeEndian, binary.BigEndian
	b := e.AppendUint32(nil, 16+inetDiagReqSize)
	b = e.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = e.AppendUint16(b, flags)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number, port id
	family := byte(unix.AF_INET)
	if local.Addr().Is6() {
		family = unix.AF_INET6
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = e.AppendUint32(b, states)
	b = big.AppendUint16(b, local.Port())
	b = big.AppendUint16(b, remote.Port())
	for _, a := range []netip.Addr{local.Addr(), remote.Addr()} {
		raw := make([]byte, 16)
		copy(raw, a.AsSlice())
		b = append(b, raw...)
	}
	zone, _ := strconv.ParseUint(local.Addr().Zone(), 10, 32)
	b = e.AppendUint32(b, uint32(zone))
	return append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // any cookie
}

func parseInetDiag(raw []byte) ([]inetDiagnosis, error) {
	messages, err := syscall.ParseNetlinkMessage(raw)
	if err != nil {
		return nil, err
	}
	var all []inetDiagnosis
	for _, m := range messages {
		switch {
		case m.Header.Type == unix.NLMSG_DONE:
			return all, nil
		case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
			return all, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < inetDiagMsgSize:
			return nil, fmt.Errorf("message of type %d with %d bytes", m.Header.Type, len(m.Data))
		}
		all = append(all, parseInetDiagMsg(m.Data))
	}
	return all, nil
}

func parseInetDiagMsg(b []byte) inetDiagnosis {
	e, big := binary.NativeEndian, binary.BigEndian
	address := func(raw []byte) netip.Addr {
		if b[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(raw[:4]))
		}
		return netip.AddrFrom16([16]byte(raw[:16]))
	}
	return inetDiagnosis{
		state:  b[1],
		local:  netip.AddrPortFrom(address(b[8:]), big.Uint16(b[4:])),
		remote: netip.AddrPortFrom(address(b[24:]), big.Uint16(b[6:])),
		inode:  e.Uint32(b[68:]),
	}
}

// ownAddress says whether addr is this host's.
func ownAddress(addr netip.Addr) (bool, error) {
	addr = addr.Unmap()
	if addr.IsLoopback() {
		return true, nil
	}
	// An address can be bound where it is the host's own, ip(7).
	fd, err := unix.Socket(familyOf(addr), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, sockaddr(familyOf(addr), netip.AddrPortFrom(addr, 0)))
	if err == nil || errors.Is(err, unix.EADDRNOTAVAIL) {
		return err == nil, nil
	}
	return false, os.NewSyscallError("bind", err)
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// sockaddr is for a socket of the family, which may be AF_INET6 for an address
// of IPv4.
func sockaddr(family int, a netip.AddrPort) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}
	}
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32)
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
}

// addrPort is the reverse of sockaddr. A zone is the number of its interface.
func addrPort(sa unix.Sockaddr) (netip.AddrPort, error) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("an address of type %T", sa)
}
