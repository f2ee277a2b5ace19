package socket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// netlinkSocket is a socket of AF_NETLINK, netlink(7).
type netlinkSocket struct {
	Type     int    `json:"type"` // SOCK_RAW or SOCK_DGRAM, which mean the same
	Protocol int    `json:"protocol"`
	Port     uint32 `json:"port,omitempty"` // nl_pid; 0 where it has no address yet
	// Groups are the numbers of the multicast groups that it is a member of.
	Groups    []int       `json:"groups,omitempty"`
	PeerPort  uint32      `json:"peer_port,omitempty"`
	PeerGroup uint32      `json:"peer_group,omitempty"`
	Values    map[int]int `json:"values,omitempty"` // by option of SOL_NETLINK
	Options   options     `json:"options"`
}

// netlinkOptions of SOL_NETLINK can be read and set.
var netlinkOptions = [...]int{
	unix.NETLINK_PKTINFO, unix.NETLINK_BROADCAST_ERROR, unix.NETLINK_NO_ENOBUFS, unix.NETLINK_LISTEN_ALL_NSID,
	unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK,
}

// maxNetlinkGroup is far above what any protocol has.
const maxNetlinkGroup = 1 << 16

func (s netlinkSocket) validate() error {
	if s.Type != unix.SOCK_RAW && s.Type != unix.SOCK_DGRAM || s.Protocol < 0 || s.Protocol > 0xff {
		return fmt.Errorf("netlink socket of type %d, protocol %d", s.Type, s.Protocol)
	}
	for _, g := range s.Groups {
		if g < 1 || g > maxNetlinkGroup {
			return fmt.Errorf("netlink group %d", g)
		}
	}
	for opt := range s.Values {
		if !isNetlinkOption(opt) {
			return fmt.Errorf("netlink option %d", opt)
		}
	}
	return s.Options.validate()
}

func isNetlinkOption(opt int) bool {
	for _, o := range netlinkOptions {
		if o == opt {
			return true
		}
	}
	return false
}

// claimNetlink refuses a socket with anything to read: only the kernel could
// send that again.
func (p *Plugin) claimNetlink(f plugin.OpenFile, fd int, k kind) (err error) {
	s := netlinkSocket{Type: k.kind, Protocol: k.protocol, Values: map[int]int{}}
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if err := pollReady(ready); err != nil {
		return os.NewSyscallError("poll", err)
	}
	switch {
	case ready[0].Revents&unix.POLLERR != 0:
		return errors.New("an error is pending")
	case ready[0].Revents&unix.POLLIN != 0:
		return errors.New("messages that were not read are queued, which only the kernel could send again")
	}
	if s.Options, err = saveOptions(fd, k.kind); err != nil {
		return err
	}
	for _, opt := range netlinkOptions {
		v, err := unix.GetsockoptInt(fd, unix.SOL_NETLINK, opt)
		if unsupported(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("getsockopt %d of SOL_NETLINK: %w", opt, err)
		}
		s.Values[opt] = v
	}
	if err := s.saveAddresses(fd); err != nil {
		return err
	}
	if s.Groups, err = netlinkGroups(fd); err != nil {
		return err
	}
	if p.state.Netlink == nil {
		p.state.Netlink = make(map[int]netlinkSocket)
	}
	p.state.Netlink[f.ID] = s
	return nil
}

func (s *netlinkSocket) saveAddresses(fd int) error {
	own, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return os.NewSyscallError("getpeername", err)
	}
	if a, ok := own.(*unix.SockaddrNetlink); ok {
		s.Port = a.Pid
	}
	if a, ok := peer.(*unix.SockaddrNetlink); ok {
		s.PeerPort, s.PeerGroup = a.Pid, a.Groups
	}
	return nil
}

// bindNetlink binds to the old port id. Where another socket has it, as that of the same program
// that runs on, one that listens to groups hears as much with any other.
func (p *Plugin) bindNetlink(fd int, s netlinkSocket) error {
	err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: s.Port})
	if errors.Is(err, unix.EADDRINUSE) && len(s.Groups) > 0 {
		p.host.Log().Warn().Uint32("port", s.Port).Msg("a netlink socket that listens to groups has another port id: its own is in use")
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		return fmt.Errorf("bind to netlink port id %d: %w", s.Port, err)
	}
	return nil
}

// makeNetlink makes the socket with its old port id, which is of the network
// namespace and may be in use by now.
func (p *Plugin) makeNetlink(id int, s netlinkSocket) error {
	fd, err := unix.Socket(unix.AF_NETLINK, s.Type|unix.SOCK_CLOEXEC, s.Protocol)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	p.keep(id, fd)
	if s.Port != 0 {
		if err := p.bindNetlink(fd, s); err != nil {
			return err
		}
	}
	if s.PeerPort != 0 || s.PeerGroup != 0 {
		peer := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: s.PeerPort, Groups: s.PeerGroup}
		if err := unix.Connect(fd, peer); err != nil {
			return fmt.Errorf("connect to netlink port id %d, groups %#x: %w", s.PeerPort, s.PeerGroup, err)
		}
	}
	for _, opt := range netlinkOptions {
		if s.Values[opt] == 0 { // as a new socket has it
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, s.Values[opt]); err != nil {
			return fmt.Errorf("setsockopt %d of SOL_NETLINK: %w", opt, err)
		}
	}
	for _, g := range s.Groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return fmt.Errorf("membership of netlink group %d: %w", g, err)
		}
	}
	return s.Options.apply(fd)
}
