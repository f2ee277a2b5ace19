package socket

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNetlink(t *testing.T) {
	const group = unix.RTNLGRP_LINK
	fd := newSocket(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	for opt, v := range map[int]int{unix.NETLINK_ADD_MEMBERSHIP: group, unix.NETLINK_EXT_ACK: 1} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, v); err != nil {
			t.Fatal(err)
		}
	}
	port := func(fd int) uint32 {
		own, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		return own.(*unix.SockaddrNetlink).Pid
	}
	before := port(fd)
	fds := killed(t, fd, newSocket(t, unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_KOBJECT_UEVENT)).mustRestart(t)
	if got := port(fds[0]); got != before {
		t.Errorf("port id %d, want %d", got, before)
	}
	if groups, err := netlinkGroups(fds[0]); err != nil || !slices.Equal(groups, []int{group}) {
		t.Errorf("groups %v, %v", groups, err)
	}
	if v, err := unix.GetsockoptInt(fds[0], unix.SOL_NETLINK, unix.NETLINK_EXT_ACK); err != nil || v != 1 {
		t.Errorf("NETLINK_EXT_ACK is %d, %v", v, err)
	}
	if k, err := kindOf(fds[1]); err != nil || k != (kind{unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_KOBJECT_UEVENT}) {
		t.Errorf("%v, %v", k, err)
	}
}

// TestNetlinkPortInUse makes sockets again whose port id another one has: of one that listens to
// groups it does not matter.
func TestNetlinkPortInUse(t *testing.T) {
	for _, groups := range [][]int{{unix.RTNLGRP_LINK}, nil} {
		fd := newSocket(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
				t.Fatal(err)
			}
		}
		own, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		image := killed(t, fd)
		if err := unix.Bind(newSocket(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE), own); err != nil {
			t.Fatal(err)
		}
		fds, err := image.restart(t)
		if groups == nil {
			if !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("without groups: %v, want EADDRINUSE", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := netlinkGroups(fds[0]); err != nil || !slices.Equal(got, groups) {
			t.Errorf("groups %v, %v, want %v", got, err, groups)
		}
	}
}

func TestNetlinkQueued(t *testing.T) {
	fd := newSocket(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
	if err := unix.Sendto(fd, diagRequest(0), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	refused(t, newPlugin(t), fd, "messages that were not read are queued")
}
