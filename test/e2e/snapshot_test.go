package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
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

// whileCopied makes a checkpoint all of whose writers wait before they write
// memory, and calls do meanwhile: the program has been copied, and runs.
func (f *faulted) whileCopied(do func(copies []int)) outcome {
	f.Helper()
	f.front = f.run("launch", "--name", f.name, "--ckptdir", f.images(), "--", f.suite.fixture("rewrite"), "160")
	f.advance(1)
	fifo := f.fifo()
	var orders []string
	for n := range 64 {
		orders = append(orders, fmt.Sprintf("%s#%d: wait %s", faultpoint.StripeWriting, n+1, fifo))
	}
	f.order(orders...)
	command := f.ask()
	w := f.meet(fifo)
	copies := f.copies()
	if len(copies) == 0 {
		f.Fatal("there is no copy of the program")
	}
	f.advance(1)
	do(copies)
	f.order() // nothing waits any more, once the FIFO has no writer
	w.Close()
	return f.outcomeOf(command)
}

// endsInSnapshot: the program has ended before its image is written. The
// generation is committed, then hiatus ends, and a restart is as of the pause.
func endsInSnapshot(f *faulted) {
	o := f.whileCopied(func(copies []int) {
		for _, pid := range f.processes() {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == f.suite.fixture("rewrite") && !slices.Contains(copies, pid) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					f.Fatal(err)
				}
			}
		}
	})
	if o.code != 0 {
		f.Fatalf("the checkpoint: %s", o)
	}
	f.ends(f.front, 137)
	f.nothingLeft()
	f.restarting()
	f.advance(2)
	f.endWell()
}

// agentKilledInSnapshot: no copy outlives the agent, and the program runs on.
func agentKilledInSnapshot(f *faulted) {
	o := f.whileCopied(func([]int) {
		if err := f.front.cmd.Process.Kill(); err != nil {
			f.Fatal(err)
		}
		f.orphaned()
	})
	if o.code == 0 {
		f.Fatalf("the checkpoint: %s", o)
	}
	f.await("the end of the copies", func() bool { return len(f.copies()) == 0 })
	f.advance(2)
	f.write("stop", "")
	f.nothingLeft()
	if text := f.read("failed"); text != "" {
		f.Errorf("the program failed: %s", text)
	}
}

// copyKilled: whoever ends the copies ends a checkpoint, and nothing else.
func copyKilled(f *faulted) {
	o := f.whileCopied(func(copies []int) {
		for _, pid := range copies {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				f.Fatal(err)
			}
		}
	})
	if o.code == 0 || !strings.Contains(o.stderr, "was ended while it was written") {
		f.Fatalf("the checkpoint: %s", o)
	}
	if left := f.copies(); len(left) > 0 {
		f.Errorf("copies are left: %v", left)
	}
	if g := f.generations(); len(g) != 0 {
		f.Errorf("a generation was committed: %v", g)
	}
	f.advance(1)
	f.order()
	f.checkpoint()
	f.advance(1)
	f.endWell()
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
