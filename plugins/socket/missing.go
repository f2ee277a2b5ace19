package socket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// bindMissing binds a socket to an address that may not be of this host: as the user allows it, by
// IP_FREEBIND, ip(7).
func (p *Plugin) bindMissing(fd, family int, address fmt.Stringer, bind func(fd int) error) error {
	err := bind(fd)
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	if !p.allowMissing {
		return fmt.Errorf("%w: it is not an address of this host; --allow-missing-address keeps it all the same", err)
	}
	level, opt := unix.IPPROTO_IP, unix.IP_FREEBIND
	if family == unix.AF_INET6 {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	was, err := unix.GetsockoptInt(fd, level, opt)
	if err == nil {
		err = unix.SetsockoptInt(fd, level, opt, 1)
	}
	if err != nil {
		return os.NewSyscallError("setsockopt IP_FREEBIND", err)
	}
	err = errors.Join(bind(fd), os.NewSyscallError("setsockopt IP_FREEBIND", unix.SetsockoptInt(fd, level, opt, was)))
	if err == nil {
		p.host.Log().Warn().Stringer("address", address).
			Msg("a socket is bound to an address that is not of this host: nobody reaches it there, until it is")
	}
	return err
}
