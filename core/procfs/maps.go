package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// deleted is what the kernel writes behind the path of a file without a link.
const deleted = " (deleted)"

// VMA is a mapping of a process: a line of /proc/PID/maps, proc_pid_maps(5).
type VMA struct {
	Start, End uint64 // the address range [Start, End)

	Read, Write, Exec bool
	Shared            bool // MAP_SHARED

	Offset             uint64 // into the file, in bytes
	DevMajor, DevMinor uint32
	Ino                uint64

	// Path is the file, a name in brackets as "[stack]", or "". It has no
	// " (deleted)" behind it: Deleted says so. The kernel escapes newlines
	// only, so a file whose name ends in " (deleted)" looks like one that is
	// deleted, and a name with a backslash and 012 like one with a newline.
	Path    string
	Deleted bool

	// The others are read from smaps only, proc_pid_smaps(5).
	Flags  []string // VmFlags, as "rd", "wr", "gd"; VMAs may share the slice: do not change it
	Locked uint64   // bytes of memory locked by mlock(2), of those present
	Rss    uint64   // bytes present
	Swap   uint64   // bytes swapped out; of shared memory, those of the object in its range
	Huge   uint64   // of them, bytes of anonymous memory in transparent huge pages
	Page   uint64   // size of its pages in bytes: those of hugetlbfs are larger
	Key    int      // protection key, pkeys(7)
}

// Has says whether flag is among Flags.
func (v *VMA) Has(flag string) bool { return slices.Contains(v.Flags, flag) }

// Prot returns the protection as in mmap(2).
func (v *VMA) Prot() int {
	prot := unix.PROT_NONE
	if v.Read {
		prot |= unix.PROT_READ
	}
	if v.Write {
		prot |= unix.PROT_WRITE
	}
	if v.Exec {
		prot |= unix.PROT_EXEC
	}
	return prot
}

// Link returns Path as the kernel writes it, with " (deleted)" behind it where
// the file is, but without its escapes: what /proc/PID/map_files links to.
func (v *VMA) Link() string {
	if v.Deleted {
		return v.Path + deleted
	}
	return v.Path
}

// Len returns the length in bytes.
func (v *VMA) Len() uint64 { return v.End - v.Start }

// Dev returns the device as stat(2) gives it.
func (v *VMA) Dev() uint64 { return unix.Mkdev(v.DevMajor, v.DevMinor) }

// ReadMaps reads /proc/PID/maps, in ascending order of address.
func ReadMaps(pid int) ([]VMA, error) { return readMaps(path(pid, "maps")) }

// ReadSmaps reads /proc/PID/smaps. The kernel walks all page tables for it, 6
// to 14 ms for each GiB: do not call it where time matters.
func ReadSmaps(pid int) ([]VMA, error) { return readMaps(path(pid, "smaps")) }

// VisitMaps calls visit for the mappings in /proc/PID/maps, in ascending order of
// address, until it returns false. It keeps none, which 60 000 of them are worth: the
// VMA is visit's for the call only.
func VisitMaps(pid int, visit func(*VMA) bool) error {
	f, err := os.Open(path(pid, "maps"))
	if err != nil {
		return err
	}
	defer f.Close()
	var v VMA
	err = eachLine(f, func(line []byte) (err error) {
		if v, err = parseMapping(line, v.Path); err == nil && !visit(&v) {
			return errSeen
		}
		return err
	})
	if err != nil && !errors.Is(err, errSeen) {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// errSeen ends a visit.
var errSeen = errors.New("seen")

// ParseMaps parses the content of /proc/PID/maps.
func ParseMaps(raw []byte) ([]VMA, error) {
	vmas, err := parseMaps(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("maps: %w", err)
	}
	return vmas, nil
}

// ParseSmaps parses the content of /proc/PID/smaps.
func ParseSmaps(raw []byte) ([]VMA, error) {
	vmas, err := parseMaps(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("smaps: %w", err)
	}
	return vmas, nil
}

func readMaps(path string) ([]VMA, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	vmas, err := parseMaps(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return vmas, nil
}

// maxLine holds the longest line: PATH_MAX bytes, each of them a newline that
// is written in four.
const maxLine = 64 << 10

var lineReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxLine) }}

// parseMaps reads maps or smaps line by line: the smaps of 60 000 VMAs have
// 40 MB, of which little is kept.
func parseMaps(r io.Reader) ([]VMA, error) {
	p := mapsParser{flags: make(map[string][]string)}
	if err := eachLine(r, p.line); err != nil {
		return nil, err
	}
	return p.vmas, nil
}

// eachLine calls do for the lines of r, without their ends, until there is an error.
func eachLine(r io.Reader, do func(line []byte) error) error {
	br := lineReaders.Get().(*bufio.Reader)
	br.Reset(r)
	defer func() {
		br.Reset(nil)
		lineReaders.Put(br)
	}()
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 && (err == nil || err == io.EOF) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			if err := do(line); err != nil {
				return fmt.Errorf("line %.200q: %w", line, err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

type mapsParser struct {
	vmas  []VMA
	flags map[string][]string // VmFlags seen, by their line: there are few
}

// line parses a mapping, which begins with a hexadecimal digit in lower case,
// or one of its properties, which begin with a capital.
func (p *mapsParser) line(b []byte) error {
	switch {
	case len(b) == 0:
		return errors.New("empty")
	case b[0] < 'A' || b[0] > 'Z':
		return p.mapping(b)
	case len(p.vmas) == 0:
		return errors.New("a property before the first mapping")
	}
	v := &p.vmas[len(p.vmas)-1]
	name, val, _ := bytes.Cut(b, []byte(":"))
	var err error
	switch string(name) {
	case "VmFlags":
		v.Flags = p.vmFlags(val)
	case "Locked":
		v.Locked, err = kilobytes(string(val))
	case "Rss":
		v.Rss, err = kilobytes(string(val))
	case "Swap":
		v.Swap, err = kilobytes(string(val))
	case "AnonHugePages":
		v.Huge, err = kilobytes(string(val))
	case "KernelPageSize":
		v.Page, err = kilobytes(string(val))
	case "ProtectionKey":
		v.Key, err = strconv.Atoi(string(bytes.TrimSpace(val)))
	}
	return err
}

func (p *mapsParser) vmFlags(b []byte) []string {
	flags, ok := p.flags[string(b)]
	if !ok {
		flags = slices.Clip(strings.Fields(string(b)))
		// Kernels up to 6.1 at least have no name for VM_LOCKONFAULT, the only flag that
		// they have none for (fs/proc/task_mmu.c, show_smap_vma_flags).
		if i := slices.Index(flags, "??"); i >= 0 && slices.Contains(flags, "lo") {
			flags[i] = "lf"
		}
		p.flags[string(b)] = flags
	}
	return flags
}

func (p *mapsParser) mapping(b []byte) error {
	before := ""
	if n := len(p.vmas); n > 0 {
		before = p.vmas[n-1].Path
	}
	v, err := parseMapping(b, before)
	if err == nil {
		p.vmas = append(p.vmas, v)
	}
	return err
}

// parseMapping parses "55acf91af000-55acf91b0000 r--p 00001000 fe:00 18500   /path".
// before is the path of the mapping before, which is often of the same file.
func parseMapping(b []byte, before string) (VMA, error) {
	var v VMA
	c := cursor{rest: b}
	v.Start = c.number(16, 64, '-')
	v.End = c.number(16, 64, ' ')
	c.perms(&v)
	v.Offset = c.number(16, 64, ' ')
	v.DevMajor = uint32(c.number(16, 32, ':'))
	v.DevMinor = uint32(c.number(16, 32, ' '))
	v.Ino = c.number(10, 64, ' ')
	if c.bad {
		return v, errors.New("not a mapping")
	}
	if v.Start >= v.End {
		return v, errors.New("empty range")
	}
	v.setPath(bytes.TrimLeft(c.rest, " "), before)
	return v, nil
}

// setPath sets Path and Deleted, and reuses the string before where it is the same.
func (v *VMA) setPath(b []byte, before string) {
	if name, ok := bytes.CutSuffix(b, []byte(deleted)); ok && b[0] == '/' {
		b, v.Deleted = name, true
	}
	if before == string(b) {
		v.Path = before
		return
	}
	v.Path = strings.ReplaceAll(string(b), `\012`, "\n")
}

// cursor reads the columns of a line from left to right.
type cursor struct {
	rest []byte
	bad  bool
}

// number reads a number and the byte behind it, which may be missing at the
// line's end.
func (c *cursor) number(base, bits int, end byte) uint64 {
	digits, rest, _ := bytes.Cut(c.rest, []byte{end})
	c.rest = rest
	n, err := strconv.ParseUint(string(digits), base, bits)
	if err != nil {
		c.bad = true
	}
	return n
}

// perms reads "rwxp" and the blank behind it.
func (c *cursor) perms(v *VMA) {
	if len(c.rest) < 5 || c.rest[4] != ' ' {
		c.bad = true
		return
	}
	v.Read = c.rest[0] == 'r'
	v.Write = c.rest[1] == 'w'
	v.Exec = c.rest[2] == 'x'
	v.Shared = c.rest[3] == 's'
	c.rest = c.rest[5:]
}
