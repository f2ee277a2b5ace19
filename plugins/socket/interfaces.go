package socket

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// interfaceTable has the options of ip(7) and ipv6(7) that name an interface
// by its index. They are kept by its name: the index may be another by then.
// networkOrder are those whose index is in the order of the network.
var interfaceTable = [...]struct {
	inetOption
	networkOrder bool
}{
	{inetOption{"IP_UNICAST_IF", unix.IPPROTO_IP, unix.IP_UNICAST_IF, ofDatagrams}, true},
	{inetOption{"IPV6_UNICAST_IF", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_IF, ofDatagrams}, true},
	{inetOption{"IPV6_MULTICAST_IF", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ofDatagrams}, false},
}

// saveInterfaces reads those of a socket that is no stream.
func (o *inetOptions) saveInterfaces(fd int, k kind) error {
	if k.kind == unix.SOCK_STREAM {
		return nil
	}
	for _, opt := range interfaceTable {
		v, err := unix.GetsockoptInt(fd, opt.level, opt.opt)
		if unsupported(err) || err == nil && v == 0 {
			continue
		}
		if err != nil {
			return fmt.Errorf("getsockopt %s: %w", opt.name, err)
		}
		name, err := interfaceName(fd, inOrder(uint32(v), opt.networkOrder))
		if err != nil {
			return fmt.Errorf("%s: %w", opt.name, err)
		}
		o.keepInterface(opt.name, name)
	}
	return nil
}

func (o *inetOptions) keepInterface(option, name string) {
	if o.Interfaces == nil {
		o.Interfaces = make(map[string]string)
	}
	o.Interfaces[option] = name
}

func (o inetOptions) applyInterfaces(fd int) error {
	for _, opt := range interfaceTable {
		name := o.Interfaces[opt.name]
		if name == "" {
			continue
		}
		index, err := interfaceIndex(fd, name)
		if err == nil {
			err = unix.SetsockoptInt(fd, opt.level, opt.opt, int(inOrder(index, opt.networkOrder)))
		}
		if err != nil {
			return fmt.Errorf("setsockopt %s to %q: %w", opt.name, name, err)
		}
	}
	if name := o.Interfaces[multicastIF]; name != "" {
		index, err := interfaceIndex(fd, name)
		if err == nil {
			err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
		}
		if err != nil {
			return fmt.Errorf("setsockopt %s to %q: %w", multicastIF, name, err)
		}
	}
	return nil
}

func (o inetOptions) validateInterfaces() error {
	for option, name := range o.Interfaces {
		known := option == multicastIF
		for _, opt := range interfaceTable {
			known = known || opt.name == option
		}
		if !known || name == "" || len(name) >= unix.IFNAMSIZ {
			return fmt.Errorf("option %q for interface %q", option, name)
		}
	}
	return nil
}

// inOrder turns an index from or to the order of the network.
func inOrder(index uint32, network bool) uint32 {
	if !network {
		return index
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], index)
	return binary.BigEndian.Uint32(b[:])
}

// interfaceName and interfaceIndex ask in the network namespace of the socket,
// netdevice(7).
func interfaceName(fd int, index uint32) (string, error) {
	r, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	r.SetUint32(index)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, r); err != nil {
		return "", fmt.Errorf("interface %d: %w", index, os.NewSyscallError("ioctl SIOCGIFNAME", err))
	}
	return r.Name(), nil
}

func interfaceIndex(fd int, name string) (uint32, error) {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r); err != nil {
		return 0, os.NewSyscallError("ioctl SIOCGIFINDEX", err)
	}
	return r.Uint32(), nil
}
