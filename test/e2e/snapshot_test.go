package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
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

// launchRewrite starts the program whose memory changes while it is written. All
// of that, compressed, would be less than the writers put together before they
// come to the step at which they wait.
func (f *faulted) launchRewrite(kind string, flags ...string) {
	f.Helper()
	args := slices.Concat([]string{"launch", "--name", f.name, "--ckptdir", f.images(), "--compress", "none"},
		flags, []string{"--", f.suite.fixture("rewrite"), "64", kind})
	f.front = f.run(args...)
	f.advance(1)
}

// rewritten waits until all that the program writes to has changed since the last
// checkpoint: the step that it was in has done some of it before.
func (f *faulted) rewritten() {
	f.Helper()
	f.advance(2)
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
	var writes []string
	for n := range 64 {
		writes = append(writes, fmt.Sprintf("%s#%d", faultpoint.StripeWriting, n+1))
	}
	return f.atAny(writes, func(*front) {
		copies := f.copies()
		f.advance(1)
		do(copies)
		f.order() // nothing waits any more, once the FIFO has no writer
	})
}

// asBefore makes sure that the program runs on as the processes that it was, and
// that nothing else is left.
func (f *faulted) asBefore(step faultpoint.Step, before []int) {
	f.Helper()
	f.unharmed()
	f.remain(string(step), before)
	f.tidy()
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
	f.endsAlone()
}

// endsAlone: a program without its agent goes on, and ends well.
func (f *faulted) endsAlone() {
	f.Helper()
	f.advance(2)
	f.write("stop", "")
	f.nothingLeft()
	if text := f.read("failed"); text != "" {
		f.Errorf("the program failed: %s", text)
	}
}

// killCopies ends the copies while they are written, and with them the checkpoint.
func (f *faulted) killCopies() {
	f.Helper()
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
}

// copyKilled: whoever ends the copies ends a checkpoint, and nothing else.
func copyKilled(f *faulted) {
	f.launchRewrite("all")
	f.killCopies()
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

// stepsWithCopies lists steps of a checkpoint that writes from copies: those at which they are
// made and ended, and those between at which the program runs.
func stepsWithCopies() []faultpoint.Step {
	return slices.Concat(faultpoint.OfSnapshot(), []faultpoint.Step{faultpoint.Closed, faultpoint.Releasing, faultpoint.Resumed,
		faultpoint.ImageCreated, faultpoint.SectionsWritten, faultpoint.StripeWriting, faultpoint.MemoryWritten})
}

// agentKilledAtSnapshot ends the agent at each of these steps: no copy, and none
// of the processes that make one, is left.
func agentKilledAtSnapshot(f *faulted) {
	f.launchFaulty("large")
	f.checkpoint()
	for _, step := range stepsWithCopies() {
		f.agentKilledAt(string(step), false)
	}
	f.agentKilledAt(string(faultpoint.CopyForked)+"#2", false) // with one copy made, or in the making
	f.endWell()
}

// agentStoppedAtSnapshot stops the agent at each of these steps, and lets it go on.
func agentStoppedAtSnapshot(f *faulted) {
	f.launchFaulty("large")
	agent := f.front.cmd.Process
	for _, step := range stepsWithCopies() {
		o := f.at(step, func(*front) {
			if err := agent.Signal(syscall.SIGSTOP); err != nil {
				f.Fatal(err)
			}
			// That it is stopped, and not only about to be.
			f.await("the stop", func() bool {
				s, err := procfs.ReadStatus(agent.Pid)
				return err == nil && s.State == 'T'
			})
			if err := agent.Signal(syscall.SIGCONT); err != nil {
				f.Fatal(err)
			}
		})
		if o.code != 0 {
			f.Errorf("%s: checkpoint: %s", step, o)
		}
		f.unharmed()
	}
	f.endWell()
}

// copiesKilledAtSnapshot ends, at each of these steps, all that is there and not of
// the program.
func copiesKilledAtSnapshot(f *faulted) {
	f.launchFaulty("large")
	before := f.alone()
	for _, step := range stepsWithCopies() {
		want, killed := f.newest(), 0
		o := f.at(step, func(*front) {
			for _, pid := range f.program() {
				if !slices.Contains(before, pid) {
					killed++
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						f.Fatal(err)
					}
					f.await("its end", func() bool { // until then its memory can be read
						s, err := procfs.ReadStatus(pid)
						return err != nil || s.State == 'Z' || s.State == 'X'
					})
				}
			}
		})
		switch {
		case step == faultpoint.StripeWriting && o.code == 0: // all was read
			want++
		case killed == 0, step == faultpoint.MemoryWritten, step == faultpoint.CopiesEnding: // all was written
			want++
			if o.code != 0 {
				f.Errorf("%s: checkpoint: %s", step, o)
			}
		case o.code != 1 || strings.Count(o.stderr, "\n") != 1:
			f.Errorf("%s: %d killed: checkpoint: %s: want exit code 1 and one line with the reason", step, killed, o)
		}
		if without := step == faultpoint.CopyStarting || step == faultpoint.CopiesEnded; (killed == 0) != without {
			f.Errorf("%s: %d copies killed", step, killed)
		}
		if got := f.newest(); got != want {
			f.Errorf("%s: the newest generation is %d, want %d", step, got, want)
		}
		f.asBefore(step, before)
	}
	f.order()
	f.checkpoint()
	f.killProgram()
	f.again()
	f.endWell()
}

// middleKilled ends the middle processes alone, before they have forked copies, while they may
// be about to, and when one has.
func middleKilled(f *faulted) {
	f.launchFaulty("large")
	before := f.alone()
	for _, step := range []faultpoint.Step{faultpoint.CopyMiddle, faultpoint.CopyTrusted, faultpoint.CopyForked} {
		o := f.at(step, func(*front) {
			for _, pid := range f.program() {
				if s, err := procfs.ReadStatus(pid); err == nil && slices.Contains(before, s.PPid) && !slices.Contains(before, pid) {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						f.Fatal(err)
					}
				}
			}
		})
		// Behind the fork nothing is missed, unless another one has not come so far.
		if o.code == 0 && step != faultpoint.CopyForked {
			f.Errorf("%s: checkpoint: %s", step, o)
		}
		f.asBefore(step, before)
	}
	f.order()
	f.checkpoint()
	f.endWell()
}

// snapshotErrors fails at the steps of a snapshot: without the memory for copies
// the image is written in the pause, else the checkpoint is given up.
func snapshotErrors(f *faulted) {
	f.launchFaulty("large")
	before := f.alone()
	for _, step := range faultpoint.OfSnapshot() {
		if step == faultpoint.CopiesEnding || step == faultpoint.CopiesEnded {
			continue // the kernel is asked for nothing
		}
		f.order(string(step) + ": error ENOMEM")
		want := f.newest()
		o := f.hiatus("checkpoint", f.name, "--json")
		if step == faultpoint.CopyStarting {
			want++
			if reason := f.inPause(o); !strings.Contains(reason, "cannot allocate memory") {
				f.Errorf("%s: written in the pause because of %q", step, reason)
			}
		} else if o.code != 1 || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "fault at "+string(step)) {
			f.Errorf("%s: checkpoint: %s: want exit code 1 and one line with the reason", step, o)
		}
		if got := f.newest(); got != want {
			f.Errorf("%s: the newest generation is %d, want %d", step, got, want)
		}
		f.asBefore(step, before)
	}
	f.order()
	f.checkpoint()
	f.endWell()
}

// inPause is why a checkpoint was written in the pause, "" where it was not.
func (tr *trial) inPause(o outcome) string {
	tr.Helper()
	var result struct {
		InPause string `json:"in_pause"`
	}
	if err := json.Unmarshal([]byte(o.stdout), &result); err != nil || o.code != 0 {
		tr.Fatalf("checkpoint: %s (%v)", o, err)
	}
	return result.InPause
}

// noMemoryForCopies runs in a control group with little memory. Where it is known
// beforehand that copies may need more, the image is written in the pause; where
// memory gets short later, it is the copy that is ended.
func noMemoryForCopies(f *faulted) {
	f.exe = f.suite.fixture("rewrite")
	group := f.memoryGroup()
	f.under, f.asRoot = group.under(f.id), true
	f.front = f.run("launch", "--name", f.name, "--ckptdir", f.images(), "--", f.exe, "40")
	f.advance(1)
	checkpoint := func() string { return f.inPause(f.hiatus("checkpoint", f.name, "--json")) }
	if reason := checkpoint(); reason != "" {
		f.Errorf("without a limit it is written in the pause: %s", reason)
	}
	f.alone() // the copies' memory is given back
	group.limit(group.used() + 20<<20)
	if reason := checkpoint(); !strings.Contains(reason, "MiB are available") {
		f.Errorf("with 20 MiB left it is written in the pause because of %q", reason)
	}
	f.advance(1)
	group.limit(1 << 40)
	want, fifo := f.newest(), f.fifo()
	f.order(fmt.Sprintf("%s: wait %s", faultpoint.SnapshotHeld, fifo), fmt.Sprintf("%s: wait %s", faultpoint.ImageCreated, f.path("later")))
	later := f.path("later")
	if err := unix.Mkfifo(later, 0o600); err != nil {
		f.Fatal(err)
	}
	f.own(later)
	command := f.ask()
	w := f.meet(fifo)
	group.limit(group.used() + 8<<20)
	w.Close()
	w = f.meet(later)
	f.advance(2) // it writes to all of its memory
	w.Close()
	if o := f.outcomeOf(command); o.code != 1 || !strings.Contains(o.stderr, "was ended while it was written") {
		f.Errorf("checkpoint: %s: want exit code 1, and that the copy was ended", o)
	}
	group.limit(1 << 40)
	if got := f.newest(); got != want {
		f.Errorf("the newest generation is %d, want %d", got, want)
	}
	f.order()
	f.tidy()
	if reason := checkpoint(); reason != "" {
		f.Errorf("without a limit again it is written in the pause: %s", reason)
	}
	f.endWell()
}

// agentKilledIncremental ends the agent at steps of an incremental checkpoint: the generation
// that restarts is one that builds on another.
func agentKilledIncremental(f *faulted) {
	f.launchFlagged([]string{"--incremental"})
	f.checkpoint()
	whenCommitted := behindCommit()
	for _, step := range slices.Concat(faultpoint.OfIncremental(), []faultpoint.Step{faultpoint.Saved, faultpoint.SectionsWritten, faultpoint.StripeWriting,
		faultpoint.Releasing, faultpoint.Resumed, faultpoint.IndexWriting, faultpoint.Written, faultpoint.Renaming, faultpoint.Renamed,
		faultpoint.Finishing, faultpoint.Finished, faultpoint.SettingAside, faultpoint.Pruning}) {
		committed := slices.Contains(whenCommitted, step)
		if step != faultpoint.SettingAside && step != faultpoint.Pruning { // come only with what was before the full one
			f.checkpoint()
		}
		f.agentKilledAt(string(step), committed)
		f.must("verify", f.images())
	}
	newest := slices.Max(f.generations())
	f.checkpoint()
	if chain := chainOf(f.trial, slices.Max(f.generations())); len(chain) < 2 {
		f.Errorf("the generation behind %s builds on none: %v", newest, chain)
	}
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
		if reason := tr.inPause(tr.hiatus("checkpoint", tr.name, "--json")); !strings.Contains(reason, want) {
			tr.Errorf("%s: written in the pause because of %q, want %q", kind, reason, want)
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
		f.rewritten()
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
	f.endsAlone()
	if err := os.Remove(f.path("stop")); err != nil {
		f.Fatal(err)
	}
	if g := f.generations(); len(g) != 1 {
		f.Errorf("generations %v, want the first alone", g)
	}
	f.restarting()
	f.running()
	f.advance(2)
	f.checkpoint() // it removes what the dead one has left
	f.endWell()
}

// copyKilledInIncrement: whoever ends the copies ends a checkpoint. The next
// generation is full, as nothing is known of the one before.
func copyKilledInIncrement(f *faulted) {
	f.launchRewrite("all", "--incremental", "--keep", "9")
	f.checkpoint()
	f.rewritten()
	f.killCopies()
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
