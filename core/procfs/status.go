package procfs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Status is /proc/PID/status, proc_pid_status(5).
type Status struct {
	Name      string // of the thread, at most 15 bytes but for kernel threads
	State     byte   // 'R', 'S', 'D', 'T' stopped, 't' traced, 'Z', 'X', 'I'
	Tgid      int
	Pid       int // the thread's id
	PPid      int
	TracerPid int    // 0 when not traced
	Uid, Gid  [4]int // real, effective, saved, file system
	Groups    []int  // supplementary groups
	FDSize    int    // allocated slots of descriptors

	// Ids in each pid namespace, from that of the /proc mount to the one the
	// process is in, which is the last. Nil on a kernel without CONFIG_PID_NS.
	NStgid, NSpid, NSpgid, NSsid []int

	Umask   int
	Threads int

	// Sets of signals: signal n is bit n-1.
	SigPnd uint64 // pending for the thread
	ShdPnd uint64 // pending for the process
	SigBlk uint64
	SigIgn uint64
	SigCgt uint64

	CapInh, CapPrm, CapEff, CapBnd, CapAmb uint64

	NoNewPrivs      bool
	Seccomp         int    // SECCOMP_MODE_DISABLED 0, STRICT 1 or FILTER 2
	CpusAllowedList string // as "0-3,8"
	VmLck           uint64 // locked memory in bytes

	// Memory in page tables, and swapped out, in bytes: not exact to the page.
	RssAnon, RssShmem, VmSwap uint64
}

// InnerPID returns the thread's id in its own pid namespace.
func (s *Status) InnerPID() int { return last(s.NSpid, s.Pid) }

// InnerTGID returns the process's id in its own pid namespace.
func (s *Status) InnerTGID() int { return last(s.NStgid, s.Tgid) }

// InnerPGID returns the process group in the process's own pid namespace; 0
// where the group's leader is not of that namespace, or the kernel does not
// tell (no CONFIG_PID_NS: see Stat.PGRP).
func (s *Status) InnerPGID() int { return last(s.NSpgid, 0) }

// InnerSID is InnerPGID for the session.
func (s *Status) InnerSID() int { return last(s.NSsid, 0) }

func last(ids []int, otherwise int) int {
	if len(ids) == 0 {
		return otherwise
	}
	return ids[len(ids)-1]
}

// ReadStatus reads /proc/PID/status.
func ReadStatus(pid int) (Status, error) {
	return parseFile(path(pid, "status"), ParseStatus)
}

// ReadTaskStatus reads /proc/PID/task/TID/status.
func ReadTaskStatus(pid, tid int) (Status, error) {
	return parseFile(taskPath(pid, tid, "status"), ParseStatus)
}

// ParseStatus parses the content of /proc/PID/status.
func ParseStatus(raw []byte) (Status, error) {
	var s Status
	for line := range strings.Lines(string(raw)) {
		key, val, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		if !ok {
			continue
		}
		if err := s.set(key, val); err != nil {
			return Status{}, fmt.Errorf("status: %s %q: %w", key, val, err)
		}
	}
	if s.Pid == 0 {
		return Status{}, errors.New("status: no Pid line")
	}
	return s, nil
}

// set stores the value of one line. It is long because the file is.
func (s *Status) set(key, val string) (err error) {
	switch key {
	case "Name":
		s.Name = unescapeName(val)
	case "State":
		if val == "" {
			return errors.New("empty")
		}
		s.State = val[0]
	case "Tgid":
		s.Tgid, err = strconv.Atoi(val)
	case "Pid":
		s.Pid, err = strconv.Atoi(val)
	case "PPid":
		s.PPid, err = strconv.Atoi(val)
	case "TracerPid":
		s.TracerPid, err = strconv.Atoi(val)
	case "Uid":
		s.Uid, err = fourIDs(val)
	case "Gid":
		s.Gid, err = fourIDs(val)
	case "Groups":
		s.Groups, err = ints(val)
	case "FDSize":
		s.FDSize, err = strconv.Atoi(val)
	case "NStgid":
		s.NStgid, err = ints(val)
	case "NSpid":
		s.NSpid, err = ints(val)
	case "NSpgid":
		s.NSpgid, err = ints(val)
	case "NSsid":
		s.NSsid, err = ints(val)
	case "Umask":
		s.Umask, err = octal(val)
	case "Threads":
		s.Threads, err = strconv.Atoi(val)
	case "SigPnd":
		s.SigPnd, err = hex(val)
	case "ShdPnd":
		s.ShdPnd, err = hex(val)
	case "SigBlk":
		s.SigBlk, err = hex(val)
	case "SigIgn":
		s.SigIgn, err = hex(val)
	case "SigCgt":
		s.SigCgt, err = hex(val)
	case "CapInh":
		s.CapInh, err = hex(val)
	case "CapPrm":
		s.CapPrm, err = hex(val)
	case "CapEff":
		s.CapEff, err = hex(val)
	case "CapBnd":
		s.CapBnd, err = hex(val)
	case "CapAmb":
		s.CapAmb, err = hex(val)
	case "NoNewPrivs":
		s.NoNewPrivs = val != "0"
	case "Seccomp":
		s.Seccomp, err = strconv.Atoi(val)
	case "Cpus_allowed_list":
		s.CpusAllowedList = val
	case "VmLck":
		s.VmLck, err = kilobytes(val)
	case "RssAnon":
		s.RssAnon, err = kilobytes(val)
	case "RssShmem":
		s.RssShmem, err = kilobytes(val)
	case "VmSwap":
		s.VmSwap, err = kilobytes(val)
	}
	return err
}

// unescapeName undoes what proc_task_name of the kernel's fs/proc/array.c
// does to the thread's name: it writes \n and \\ for newline and backslash.
func unescapeName(s string) string { return nameEscapes.Replace(s) }

var nameEscapes = strings.NewReplacer(`\n`, "\n", `\\`, `\`)

func fourIDs(s string) (ids [4]int, err error) {
	list, err := ints(s)
	if err != nil {
		return ids, err
	}
	if len(list) != len(ids) {
		return ids, fmt.Errorf("%d ids, want %d", len(list), len(ids))
	}
	return [4]int(list), nil
}

// ints parses decimal numbers between blanks; none gives nil.
func ints(s string) ([]int, error) {
	var list []int
	for w := range strings.FieldsSeq(s) {
		n, err := strconv.Atoi(w)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

func octal(s string) (int, error) {
	n, err := strconv.ParseUint(s, 8, 31)
	return int(n), err
}

func hex(s string) (uint64, error) { return strconv.ParseUint(s, 16, 64) }

// kilobytes parses "       4 kB" and returns bytes.
func kilobytes(s string) (uint64, error) {
	num, ok := strings.CutSuffix(strings.TrimSpace(s), " kB")
	if !ok {
		return 0, errors.New("not in kB")
	}
	n, err := strconv.ParseUint(num, 10, 54) // 54+10 bits hold the bytes
	return n << 10, err
}
