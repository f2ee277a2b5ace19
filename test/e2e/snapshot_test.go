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

// launchRewrite starts the program whose memory changes while it is written.
func (f *faulted) launchRewrite(kind string, flags ...string) {
	f.Helper()
	args := slices.Concat([]string{"launch", "--name", f.name, "--ckptdir", f.images()}, flags, []string{"--", f.suite.fixture("rewrite"), "160", kind})
	f.front = f.run(args...)
	f.advance(1)
}

// whileCopied is whileWritten of a program that has been copied.
func (f *faulted) whileCopied(do func(copies []int)) outcome {
	f.Helper()
	return f.whileWritten(func(copies []int) {
		if len(copies) == 0 {
			f.Fatal("there is no copy of the program")
		}
		do(copies)
	})
}

// whileWritten makes a checkpoint all of whose writers wait before they write
// memory, and calls do meanwhile: the program runs.
func (f *faulted) whileWritten(do func(copies []int)) outcome {
	f.Helper()
	fifo := f.fifo()
	var orders []string
	for n := range 64 {
		orders = append(orders, fmt.Sprintf("%s#%d: wait %s", faultpoint.StripeWriting, n+1, fifo))
	}
	f.order(orders...)
	command := f.ask()
	w := f.meet(fifo)
	copies := f.copies()
	f.advance(1)
	do(copies)
	f.order() // nothing waits any more, once the FIFO has no writer
	w.Close()
	return f.outcomeOf(command)
}

// endsInSnapshot: the program has ended before its image is written. The
// generation is committed, then hiatus ends, and a restart is as of the pause.
func endsInSnapshot(f *faulted) {
	f.launchRewrite("all")
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
	f.launchRewrite("all")
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
	f.launchRewrite("all")
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

// incrementalSnapshot: generations that store what has changed are written
// while the program runs on, those that store little without a copy of it. Each
// of the chain restarts as of its moment.
func incrementalSnapshot(f *faulted, kind string, copied bool) {
	f.launchRewrite(kind, "--incremental", "--full-every", "3", "--keep", "9")
	if o := f.whileCopied(func([]int) {}); o.code != 0 { // the first one is full
		f.Fatalf("the checkpoint: %s", o)
	}
	for range 3 {
		f.advance(1)
		o := f.whileWritten(func(copies []int) {
			if full := len(f.generations()) == 3; (len(copies) > 0) != (copied || full) {
				f.Errorf("generation %d: copies %v", len(f.generations())+1, copies)
			}
		})
		if o.code != 0 {
			f.Fatalf("the checkpoint: %s", o)
		}
	}
	all := f.generations()
	if got, want := fmt.Sprint(chainOf(f.trial, all[1]), chainOf(f.trial, all[2]), chainOf(f.trial, all[3])), "[2 1] [3 2 1] [4]"; got != want {
		f.Errorf("chains %s, want %s", got, want)
	}
	f.endProgram()
	for g := range all {
		f.restarting("--generation", fmt.Sprint(g+1))
		f.running()
		f.advance(3)
		if g+1 < len(all) {
			f.endProgram()
		}
	}
	f.endWell()
}

// endProgram ends the program, and waits for hiatus.
func (f *faulted) endProgram() {
	f.Helper()
	f.must("kill", f.name)
	f.wait(f.front)
	f.nothingLeft()
}

// agentKilledInIncrement: the agent dies while it writes what has changed. The
// program, whose memory it has tracked, goes on, and the generation before
// restarts.
func agentKilledInIncrement(f *faulted) {
	f.launchRewrite("few", "--incremental")
	f.checkpoint()
	f.advance(1)
	o := f.whileWritten(func(copies []int) {
		if len(copies) > 0 {
			f.Errorf("copies %v", copies)
		}
		if err := f.front.cmd.Process.Kill(); err != nil {
			f.Fatal(err)
		}
		f.orphaned()
	})
	if o.code == 0 {
		f.Fatalf("the checkpoint: %s", o)
	}
	f.advance(2)
	f.write("stop", "")
	f.nothingLeft()
	if text := f.read("failed"); text != "" {
		f.Errorf("the program failed: %s", text)
	}
	if err := os.Remove(f.path("stop")); err != nil {
		f.Fatal(err)
	}
	if g := f.generations(); len(g) != 1 {
		f.Errorf("generations %v, want the first alone", g)
	}
	f.restarting()
	f.running()
	f.advance(2)
	f.endWell()
}

// copyKilledInIncrement: whoever ends the copies ends a checkpoint. The next
// generation is full, as nothing is known of the one before.
func copyKilledInIncrement(f *faulted) {
	f.launchRewrite("all", "--incremental")
	f.checkpoint()
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
	f.advance(1)
	f.order()
	f.checkpoint()
	f.checkpoint()
	for n, want := range []int{1, 1, 2} {
		if chain := chainOf(f.trial, f.generations()[n]); len(chain) != want {
			f.Errorf("chain %v, want %d", chain, want)
		}
	}
	f.advance(1)
	f.endWell()
}
