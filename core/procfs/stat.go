package procfs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Stat is /proc/PID/stat, proc_pid_stat(5). Addresses are 0 or 1, and ExitCode
// is 0, to a reader that may not trace the process.
type Stat struct {
	PID     int
	Comm    string // as in Status.Name
	State   byte   // as in Status.State
	PPID    int
	PGRP    int
	Session int
	TTYNr   int    // device number of the controlling terminal, 0 for none
	TPGID   int    // foreground process group of that terminal, -1 for none
	Flags   uint64 // PF_* of the kernel's include/linux/sched.h

	UTime, STime uint64 // clock ticks of sysconf(_SC_CLK_TCK)

	Priority   int
	Nice       int
	NumThreads int
	StartTime  uint64 // clock ticks since boot, in the reader's time namespace
	VSize      uint64 // bytes

	StartCode, EndCode uint64
	StartStack         uint64

	ExitSignal int // sent to the parent; -1 for a thread that is not the leader
	Processor  int // where it ran last
	RTPriority int
	Policy     int // SCHED_*

	StartData, EndData uint64
	StartBrk           uint64
	ArgStart, ArgEnd   uint64
	EnvStart, EnvEnd   uint64

	ExitCode int // as in waitpid(2), of a zombie
}

// ReadStat reads /proc/PID/stat.
func ReadStat(pid int) (Stat, error) {
	return parseFile(path(pid, "stat"), ParseStat)
}

// ReadTaskStat reads /proc/PID/task/TID/stat.
func ReadTaskStat(pid, tid int) (Stat, error) {
	return parseFile(taskPath(pid, tid, "stat"), ParseStat)
}

// ParseStat parses the content of /proc/PID/stat. The name stands in
// parentheses and may hold any byte, so it ends at the last parenthesis.
func ParseStat(raw []byte) (Stat, error) {
	line := string(raw)
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return Stat{}, errors.New("stat: no name in parentheses")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[:open]))
	if err != nil {
		return Stat{}, fmt.Errorf("stat: pid: %w", err)
	}
	n := statNumbers{words: strings.Fields(line[end+1:])}
	s := Stat{
		PID:   pid,
		Comm:  line[open+1 : end],
		State: n.word(3)[0],

		PPID:    n.signed(4),
		PGRP:    n.signed(5),
		Session: n.signed(6),
		TTYNr:   n.signed(7),
		TPGID:   n.signed(8),
		Flags:   n.unsigned(9),

		UTime:      n.unsigned(14),
		STime:      n.unsigned(15),
		Priority:   n.signed(18),
		Nice:       n.signed(19),
		NumThreads: n.signed(20),
		StartTime:  n.unsigned(22),
		VSize:      n.unsigned(23),

		StartCode:  n.unsigned(26),
		EndCode:    n.unsigned(27),
		StartStack: n.unsigned(28),

		ExitSignal: n.signed(38),
		Processor:  n.signed(39),
		RTPriority: n.signed(40),
		Policy:     n.signed(41),

		StartData: n.unsigned(45),
		EndData:   n.unsigned(46),
		StartBrk:  n.unsigned(47),
		ArgStart:  n.unsigned(48),
		ArgEnd:    n.unsigned(49),
		EnvStart:  n.unsigned(50),
		EnvEnd:    n.unsigned(51),
		ExitCode:  n.signed(52),
	}
	if n.err != nil {
		return Stat{}, fmt.Errorf("stat: pid %d: %w", pid, n.err)
	}
	return s, nil
}

// statNumbers gives the fields behind the name by their number in
// proc_pid_stat(5), and keeps the first error.
type statNumbers struct {
	words []string // words[0] is field 3
	err   error
}

func (n *statNumbers) word(field int) string {
	if i := field - 3; i < len(n.words) {
		return n.words[i]
	}
	n.fail(field, errors.New("missing"))
	return "0"
}

func (n *statNumbers) signed(field int) int {
	v, err := strconv.Atoi(n.word(field))
	n.fail(field, err)
	return v
}

func (n *statNumbers) unsigned(field int) uint64 {
	v, err := strconv.ParseUint(n.word(field), 10, 64)
	n.fail(field, err)
	return v
}

func (n *statNumbers) fail(field int, err error) {
	if err != nil && n.err == nil {
		n.err = fmt.Errorf("field %d: %w", field, err)
	}
}
