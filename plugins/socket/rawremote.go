package socket

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// remoteWithoutPort returns the sockaddr that a raw or ping socket is connected
// to, empty where it is not: /proc/net/raw and its kin show it.
func remoteWithoutPort(k kind, ino uint64) ([]byte, error) {
	name := map[bool]string{true: "raw", false: "icmp"}[k.kind == unix.SOCK_RAW]
	if k.family == unix.AF_INET6 {
		name += "6"
	}
	raw, err := os.ReadFile("/proc/net/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseRemote(string(raw), k.family, ino)
}

// parseRemote finds the line of the inode: sl, local and remote address, ...
func parseRemote(text string, family int, ino uint64) ([]byte, error) {
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 10 || words[9] != strconv.FormatUint(ino, 10) {
			continue
		}
		digits, _, _ := strings.Cut(words[2], ":")
		address, err := hex.DecodeString(digits)
		if err != nil || len(address)%4 != 0 {
			return nil, fmt.Errorf("remote address %q in /proc/net", words[2])
		}
		// Each word of four bytes is in the order of the machine.
		for i := 0; i < len(address); i += 4 {
			binary.NativeEndian.PutUint32(address[i:], binary.BigEndian.Uint32(address[i:]))
		}
		if strings.Trim(string(address), "\x00") == "" {
			return nil, nil
		}
		switch {
		case family == unix.AF_INET && len(address) == 4:
			sockaddr := make([]byte, unix.SizeofSockaddrInet4)
			binary.NativeEndian.PutUint16(sockaddr, unix.AF_INET)
			copy(sockaddr[4:], address)
			return sockaddr, nil
		case family == unix.AF_INET6 && len(address) == 16:
			sockaddr := make([]byte, unix.SizeofSockaddrInet6)
			binary.NativeEndian.PutUint16(sockaddr, unix.AF_INET6)
			copy(sockaddr[8:], address)
			return sockaddr, nil
		}
		return nil, fmt.Errorf("remote address %q in /proc/net", words[2])
	}
	return nil, nil
}
