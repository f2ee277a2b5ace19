package procfs

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	got, err := ParseStat(sample(t, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	want := Stat{
		PID: 7081, Comm: "job (a) S 1 2", State: 'S',
		PPID: 6747, PGRP: 7081, Session: 2772, TTYNr: 34816, TPGID: 7081, Flags: 4194304,
		UTime: 4, STime: 1, Priority: 20, Nice: -5, NumThreads: 3, StartTime: 110421, VSize: 17281024,
		StartCode: 94201402032128, EndCode: 94201402032469, StartStack: 140730139186192,
		ExitSignal: 17, Processor: 1,
		StartData: 94201402043824, EndData: 94201402044440, StartBrk: 94201578688512,
		ArgStart: 140730139187366, ArgEnd: 140730139187419, EnvStart: 140730139187420, EnvEnd: 140730139189199,
		ExitCode: 256,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseStatNames(t *testing.T) {
	_, numbers, _ := bytes.Cut(sample(t, "stat"), []byte(" 1 2) "))
	for _, name := range []string{"", ")", "((", ") R 1", "a\nb", " ", "\xff"} {
		raw := append([]byte("1 ("+name+") "), numbers...)
		got, err := ParseStat(raw)
		if err != nil || got.Comm != name || got.State != 'S' || got.ExitCode != 256 {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
}

func TestParseStatErrors(t *testing.T) {
	whole := string(sample(t, "stat"))
	tests := map[string]string{
		"empty":            "",
		"no name":          "1 job S 1",
		"brackets crossed": "1 )job( S 1",
		"no pid":           "x (job) S 1",
		"nothing behind":   "1 (job)",
		"cut off":          strings.TrimSuffix(whole, " 256\n"),
		"not a number":     strings.Replace(whole, " 6747 ", " x ", 1),
		"address":          strings.Replace(whole, " 94201402032128 ", " -1 ", 1),
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseStat([]byte(raw)); err == nil {
				t.Errorf("no error: %+v", got)
			}
		})
	}
}

func TestLiveStat(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, tid := os.Getpid(), unix.Gettid()

	s, err := ReadStat(self)
	if err != nil {
		t.Fatal(err)
	}
	sid, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	if s.PID != self || s.PPID != os.Getppid() || s.PGRP != unix.Getpgrp() || s.Session != sid {
		t.Errorf("%+v", s)
	}
	if s.StartCode == 0 || s.StartCode >= s.EndCode || s.ArgStart >= s.ArgEnd || s.EnvStart > s.EnvEnd {
		t.Errorf("addresses: %+v", s)
	}
	if s, err = ReadTaskStat(self, tid); err != nil || s.PID != tid || s.State != 'R' {
		t.Errorf("thread %d: %+v, %v", tid, s, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add(sample(f, "stat"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseStat(raw)
		if err == nil && !bytes.Contains(raw, []byte("("+s.Comm+")")) {
			t.Errorf("%+v", s)
		}
	})
}
