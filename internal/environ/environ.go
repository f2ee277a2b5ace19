// Package environ reads and changes the environment of a stopped process of
// another program, as its C library has it.
//
// execve(2) leaves an array of pointers to strings on the stack. The C library
// keeps its address in the variable environ (environ(7)), which getenv(3) reads
// at each call; setenv(3) makes a larger array on the heap and changes the
// variable. So a new array and new strings, in memory of their own, and one
// store to that variable are all that a change takes, and what the program
// holds pointers to stays as it is. The variable is found by its name in the
// dynamic symbols of the executable, which has a copy of it where it uses it
// itself (R_X86_64_COPY), else of the C library.
//
// Programs that keep copies, as Python's os.environ or Go, see no change; a
// static program without symbols is an error.
package environ

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is what is needed of a plugin.Process.
type Process interface {
	PID() int
	HostPID() int
	ReadAt(b []byte, off int64) (int, error)
	WriteAt(b []byte, off int64) (int, error)
	Syscall(ctx context.Context, nr uintptr, args ...uintptr) (uintptr, error)
}

const (
	maxEntries = 1 << 16
	maxString  = 1 << 17 // MAX_ARG_STRLEN, execve(2)
	maxTotal   = 8 << 20
	page       = 4096
)

// ErrUnknown says that the variable environ was not found.
var ErrUnknown = errors.New("the program's variable environ is not known: it has no C library, or no symbols")

// Read returns the environment as getenv(3) would find it now.
func Read(p Process) ([]string, error) {
	at, err := variable(p)
	if err != nil {
		return nil, err
	}
	return readList(p, at)
}

// Change has the process see what change makes of its environment.
func Change(ctx context.Context, p Process, change func([]string) []string) error {
	at, err := variable(p)
	if err != nil {
		return err
	}
	old, err := readList(p, at)
	if err != nil {
		return err
	}
	list := change(old)
	total := 8 * (len(list) + 1)
	for _, s := range list {
		total += len(s) + 1
	}
	if total > maxTotal || len(list) > maxEntries {
		return fmt.Errorf("pid %d: an environment of %d bytes is too large", p.PID(), total)
	}
	size := (total + page - 1) &^ (page - 1)
	addr, err := p.Syscall(ctx, unix.SYS_MMAP, 0, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	if err != nil {
		return fmt.Errorf("pid %d: mmap of %d bytes: %w", p.PID(), size, err)
	}
	if _, err := p.WriteAt(layOut(list, uint64(addr)), int64(addr)); err != nil {
		return err
	}
	var pointer [8]byte
	binary.LittleEndian.PutUint64(pointer[:], uint64(addr))
	_, err = p.WriteAt(pointer[:], int64(at))
	return err
}

// layOut makes the array and, behind it, the strings, for the address base.
func layOut(list []string, base uint64) []byte {
	array := make([]byte, 8*(len(list)+1))
	var strs []byte
	for i, s := range list {
		binary.LittleEndian.PutUint64(array[8*i:], base+uint64(len(array)+len(strs)))
		strs = append(append(strs, s...), 0)
	}
	return append(array, strs...)
}

// readList reads the array that the variable at points to.
func readList(p Process, at uint64) ([]string, error) {
	array, err := readPointer(p, at)
	if err != nil || array == 0 { // clearenv(3)
		return nil, err
	}
	list, total := []string{}, 0
	for i := range maxEntries {
		pointer, err := readPointer(p, array+uint64(8*i))
		if err != nil {
			return nil, err
		}
		if pointer == 0 {
			return list, nil
		}
		s, err := readString(p, pointer)
		if err != nil {
			return nil, err
		}
		if total += len(s) + 9; total > maxTotal {
			break
		}
		list = append(list, s)
	}
	return nil, fmt.Errorf("pid %d: the environment has no end", p.PID())
}

func readPointer(p Process, addr uint64) (uint64, error) {
	var b [8]byte
	if _, err := p.ReadAt(b[:], int64(addr)); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// readString reads up to a zero, never over the end of a page that has none.
func readString(p Process, addr uint64) (string, error) {
	var out []byte
	for len(out) <= maxString {
		b := make([]byte, page-addr%page)
		if _, err := p.ReadAt(b, int64(addr)); err != nil {
			return "", err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(append(out, b[:i]...)), nil
		}
		out = append(out, b...)
		addr += uint64(len(b))
	}
	return "", fmt.Errorf("pid %d: a string of the environment has no end", p.PID())
}

// object is a mapped ELF file.
type object struct {
	path string // in /proc/PID/root
	base uint64 // of its first mapping
}

// variable finds the address of environ: of the executable's own, else of the
// C library's.
func variable(p Process) (uint64, error) {
	objects, err := objects(p)
	if err != nil {
		return 0, err
	}
	for _, o := range objects {
		if addr, ok := o.symbol(); ok {
			if _, err := readPointer(p, addr); err == nil {
				return addr, nil
			}
		}
	}
	return 0, fmt.Errorf("pid %d: %w", p.PID(), ErrUnknown)
}

// objects lists the executable and then the C library, glibc's or musl's.
func objects(p Process) ([]object, error) {
	proc := "/proc/" + strconv.Itoa(p.HostPID())
	exe, err := os.Readlink(proc + "/exe")
	if err != nil {
		return nil, err
	}
	maps, err := os.ReadFile(proc + "/maps")
	if err != nil {
		return nil, err
	}
	var first, libraries []object
	seen := map[string]bool{}
	for line := range strings.Lines(string(maps)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
		if len(fields) < 6 {
			continue
		}
		path := strings.TrimLeft(fields[5], " ")
		start, _, _ := strings.Cut(fields[0], "-")
		base, err := strconv.ParseUint(start, 16, 64)
		if err != nil || seen[path] || !strings.HasPrefix(path, "/") {
			continue
		}
		seen[path] = true
		o := object{proc + "/root" + path, base}
		name := path[strings.LastIndexByte(path, '/')+1:]
		switch {
		case path == exe:
			o.path = proc + "/exe"
			first = append(first, o)
		case strings.HasPrefix(name, "libc.so") || strings.HasPrefix(name, "libc-2.") || strings.HasPrefix(name, "ld-musl") || strings.HasPrefix(name, "libc.musl"):
			libraries = append(libraries, o)
		}
	}
	return append(first, libraries...), nil
}

// symbol looks for environ among the defined symbols.
func (o object) symbol() (addr uint64, ok bool) {
	f, err := elf.Open(o.path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return 0, false
	}
	bias := uint64(0)
	if f.Type == elf.ET_DYN {
		bias = o.base - lowest(f)
	}
	dynamic, _ := f.DynamicSymbols() // none in a static program
	static, _ := f.Symbols()         // none in a stripped one
	for _, s := range append(dynamic, static...) {
		name, _, _ := strings.Cut(s.Name, "@")
		if (name == "environ" || name == "__environ") && s.Section != elf.SHN_UNDEF && s.Value != 0 && s.Size == 8 {
			return bias + s.Value, true
		}
	}
	return 0, false
}

// lowest is the page of the first segment's address.
func lowest(f *elf.File) uint64 {
	for _, s := range f.Progs {
		if s.Type == elf.PT_LOAD {
			return s.Vaddr &^ (page - 1)
		}
	}
	return 0
}
