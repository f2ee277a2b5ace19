package socket

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// group4or6 is a multicast group that a socket is a member of.
type group4or6 struct {
	Address   netip.Addr `json:"address"`
	Interface string     `json:"interface"` // its name: the index may be another by then
	index     int
}

// Of linux/in.h: both families have them.
const (
	mcastJoinGroup = 42
	mcastMSFilter  = 48
	mcastExclude   = 0
)

func (g group4or6) level() int {
	if g.Address.Is4() {
		return unix.IPPROTO_IP
	}
	return unix.IPPROTO_IPV6
}

// request is struct group_req, or the beginning of struct group_filter: the
// interface and a sockaddr_storage.
func (g group4or6) request(size int) []byte {
	b := make([]byte, size)
	e := binary.NativeEndian
	e.PutUint32(b, uint32(g.index))
	if g.Address.Is4() {
		e.PutUint16(b[8:], unix.AF_INET)
		copy(b[12:], g.Address.AsSlice())
	} else {
		e.PutUint16(b[8:], unix.AF_INET6)
		copy(b[16:], g.Address.AsSlice())
	}
	return b
}

const groupRequestSize = 8 + 128

func (g group4or6) join(fd int) error {
	index, err := interfaceIndex(fd, g.Interface)
	if err != nil {
		return fmt.Errorf("membership of group %v on interface %q: %w", g.Address, g.Interface, err)
	}
	g.index = int(index)
	if err := unix.SetsockoptString(fd, g.level(), mcastJoinGroup, string(g.request(groupRequestSize))); err != nil {
		return fmt.Errorf("membership of group %v on interface %q: %w", g.Address, g.Interface, err)
	}
	return nil
}

// member says whether fd is a member: only then is there a filter to read.
func (g group4or6) member(fd int) (bool, error) {
	filter := g.request(groupRequestSize + 8)
	err := getRaw(fd, g.level(), mcastMSFilter, filter)
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || unsupported(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("getsockopt MCAST_MSFILTER: %w", err)
	}
	e := binary.NativeEndian
	if e.Uint32(filter[groupRequestSize:]) != mcastExclude || e.Uint32(filter[groupRequestSize+4:]) != 0 {
		return true, fmt.Errorf("it filters the sources of multicast group %v: not kept yet", g.Address)
	}
	return true, nil
}

// memberships asks for each group that the host is a member of.
func memberships(fd, family int) ([]group4or6, error) {
	path, parse := "/proc/net/igmp", parseIGMP
	if family == unix.AF_INET6 {
		path, parse = "/proc/net/igmp6", parseIGMP6
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var groups []group4or6
	for _, g := range parse(string(raw)) {
		is, err := g.member(fd)
		if err != nil {
			return nil, err
		}
		if !is {
			continue
		}
		if g.Interface, err = interfaceName(fd, uint32(g.index)); err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// parseIGMP reads /proc/net/igmp: a line for each interface, with lines of its
// groups in the byte order of the machine behind it.
func parseIGMP(text string) (groups []group4or6) {
	index := 0
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if line[0] != '\t' && line[0] != ' ' {
			index, _ = strconv.Atoi(words[0]) // the head gives 0
			continue
		}
		if v, err := strconv.ParseUint(words[0], 16, 32); err == nil && index > 0 {
			var a [4]byte
			binary.NativeEndian.PutUint32(a[:], uint32(v))
			groups = append(groups, group4or6{Address: netip.AddrFrom4(a), index: index})
		}
	}
	return groups
}

// parseIGMP6 reads /proc/net/igmp6: index, name, group, ...
func parseIGMP6(text string) (groups []group4or6) {
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 3 {
			continue
		}
		index, err := strconv.Atoi(words[0])
		raw, err2 := hex.DecodeString(words[2])
		if err == nil && err2 == nil && len(raw) == 16 && index > 0 {
			groups = append(groups, group4or6{Address: netip.AddrFrom16([16]byte(raw)), index: index})
		}
	}
	return groups
}
