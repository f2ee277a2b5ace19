package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// copies lists the processes that the image is written from.
func (tr *trial) copies() (pids []int) {
	for _, pid := range tr.processes() {
		name, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "comm"))
		if err == nil && string(name) == "hiatus-snapshot\n" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// beginCheckpoint starts one that takes a while, and waits until the program
// has been copied. answer returns how the command ended.
func (tr *trial) beginCheckpoint() (pids []int, answer func() outcome) {
	tr.Helper()
	tr.launchWith([]string{"--compress", "zstd"}, tr.suite.fixture("rewrite"), "160")
	tr.advance(1)
	agent := tr.front
	done := make(chan outcome, 1)
	go func() { done <- tr.hiatus("checkpoint", tr.name, "--json") }()
	tr.await("the copy", func() bool { pids = tr.copies(); return len(pids) > 0 })
	tr.front = agent
	return pids, func() outcome { return <-done }
}

// endsInSnapshot: the program has ended before its image is written. The
// generation is committed, then hiatus ends, and a restart is as of the pause.
func endsInSnapshot(tr *trial) {
	copies, answer := tr.beginCheckpoint()
	for _, pid := range tr.processes() {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == tr.suite.fixture("rewrite") && !slices.Contains(copies, pid) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				tr.Fatal(err)
			}
		}
	}
	if o := answer(); o.code != 0 {
		tr.Fatalf("the checkpoint: %s", o)
	}
	tr.ends(tr.front, 137)
	tr.gone()
	tr.restart()
	tr.advance(2)
	tr.finish()
}

// agentKilledInSnapshot: no copy outlives the agent, and the program runs on.
func agentKilledInSnapshot(tr *trial) {
	_, answer := tr.beginCheckpoint()
	if err := tr.front.cmd.Process.Kill(); err != nil {
		tr.Fatal(err)
	}
	if o := answer(); o.code == 0 {
		tr.Fatalf("the checkpoint: %s", o)
	}
	tr.wait(tr.front)
	tr.front = nil
	tr.await("the end of the copies", func() bool { return len(tr.copies()) == 0 })
	tr.advance(2)
	tr.write("stop", "")
	tr.gone()
	if text := tr.read("failed"); text != "" {
		tr.Errorf("the program failed: %s", text)
	}
}

// copyKilled: whoever ends a copy ends a checkpoint, and nothing else.
func copyKilled(tr *trial) {
	pids, answer := tr.beginCheckpoint()
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		tr.Fatal(err)
	}
	if o := answer(); o.code == 0 || !strings.Contains(o.stderr, "was ended while it was written") {
		tr.Fatalf("the checkpoint: %s", o)
	}
	if left := tr.copies(); len(left) > 0 {
		tr.Errorf("copies are left: %v", left)
	}
	if g := tr.generations(); len(g) != 0 {
		tr.Errorf("a generation was committed: %v", g)
	}
	tr.advance(1)
	tr.checkpoint()
	tr.advance(1)
	tr.finish()
	tr.gone()
}

// noSnapshot: what cannot be copied is written in the pause, and the user
// reads why.
func noSnapshot(tr *trial) {
	for kind, want := range map[string]string{"reaper": "adopts orphans", "limited": "RLIMIT_NPROC"} {
		if kind == "limited" && tr.id.uid == 0 {
			continue // root has no such limit
		}
		tr.write("progress", "")
		tr.launch(tr.suite.fixture("rewrite"), "20", kind)
		tr.advance(1)
		var result struct {
			InPause string `json:"in_pause"`
		}
		if err := json.Unmarshal([]byte(tr.must("checkpoint", tr.name, "--json")), &result); err != nil {
			tr.Fatal(err)
		}
		if !strings.Contains(result.InPause, want) {
			tr.Errorf("%s: written in the pause because of %q, want %q", kind, result.InPause, want)
		}
		tr.advance(1)
		tr.suspend()
		tr.restart()
		tr.advance(1)
		tr.finish()
		tr.gone()
		if err := os.RemoveAll(tr.images()); err != nil {
			tr.Fatal(err)
		}
		if err := os.Remove(tr.path("stop")); err != nil {
			tr.Fatal(err)
		}
	}
}
