package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// loopbackIndex is the index of lo in every network namespace.
const loopbackIndex = 1

// privateNet is a network namespace that only sockets of the computation are
// in. Whoever owns its user namespace has CAP_NET_ADMIN over it
// (user_namespaces(7)), and so TCP_REPAIR, SO_MARK and the like.
type privateNet struct {
	v4, v6    int // sockets to configure it by; v6 is -1 where no other needs IPv6
	fds       []int
	addresses map[netip.Addr]bool
	aliases   int
}

// newPrivateNet makes a namespace whose loopback interface is up, with one
// socket of each kind.
func newPrivateNet(kinds []kind) (*privateNet, error) {
	control := []kind{{unix.AF_INET, unix.SOCK_DGRAM, 0}}
	if slices.ContainsFunc(kinds, func(k kind) bool { return k.family == unix.AF_INET6 }) {
		control = append(control, kind{unix.AF_INET6, unix.SOCK_DGRAM, 0})
	}
	fds, err := socketsInNewNamespace(slices.Concat(control, kinds))
	if err != nil {
		return nil, err
	}
	n := &privateNet{v4: fds[0], v6: -1, fds: fds[len(control):], addresses: make(map[netip.Addr]bool)}
	if len(control) > 1 {
		n.v6 = fds[1]
	}
	if err := n.up(); err != nil {
		n.close()
		for _, fd := range n.fds {
			unix.Close(fd)
		}
		return nil, err
	}
	return n, nil
}

// close lets the namespace live as long as its sockets.
func (n *privateNet) close() {
	unix.Close(n.v4)
	if n.v6 >= 0 {
		unix.Close(n.v6)
	}
}

func (n *privateNet) up() error {
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS of lo", unix.IoctlIfreq(n.v4, unix.SIOCSIFFLAGS, r))
}

// addAddress makes addr local, where it is not by itself.
func (n *privateNet) addAddress(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() || n.addresses[addr] {
		return nil
	}
	if addr.Is4() {
		n.aliases++
		r, err := unix.NewIfreq(fmt.Sprintf("lo:%d", n.aliases))
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(addr.AsSlice()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(n.v4, unix.SIOCSIFADDR, r); err != nil {
			return fmt.Errorf("address %s on lo: %w", addr, err)
		}
	} else if err := addInet6Address(n.v6, addr.As16(), loopbackIndex); err != nil {
		return fmt.Errorf("address %s on lo: %w", addr, err)
	}
	n.addresses[addr] = true
	return nil
}

// bindPrivate waits for an address of IPv6 that was added just now: the kernel
// looks for duplicates first, in the background, on lo too. RTM_NEWADDR of
// rtnetlink(7) would tell; the wait is one of milliseconds, and rare.
func bindPrivate(fd int, to unix.Sockaddr) error {
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		err := unix.Bind(fd, to)
		if !errors.Is(err, unix.EADDRNOTAVAIL) || time.Since(begun) > patience {
			return err
		}
	}
}

// netCookie names the network namespace of a socket (SO_NETNS_COOKIE, since
// Linux 5.14). Before, all sockets are taken for those of one namespace.
func netCookie(fd int) (uint64, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if unsupported(err) {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("getsockopt SO_NETNS_COOKIE", err)
	}
	return cookie, nil
}
