package e2e

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/procfs"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// TestFaults makes things go wrong at each step of a checkpoint and of a
// restart. Afterwards the program runs on, unharmed, or is gone of its own
// cause; the last generation that was committed restarts; and nothing is left.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	s := newFaultSuite(t)
	for _, c := range []struct {
		name string
		run  func(f *faulted)
	}{
		{"all steps are met", allStepsMet},
		{"agent killed in a checkpoint", agentKilled},
		{"agent killed in an injection", agentKilledInjecting},
		{"agent killed between the stops of threads", agentKilledBetweenStops},
		{"agent killed over stopped processes", stoppedOrphaned},
		{"agent killed in a restart", agentKilledRestarting},
		{"agent stopped", agentStopped},
		{"command killed", commandKilled},
		{"errors in a checkpoint", checkpointErrors},
		{"errors in a restart", restartErrors},
		{"folders of a restart that fails", foldersOfFailedRestart},
		{"time-outs in a restart that takes long", timeoutsInRestart},
		{"signals in a restart", signalsInRestart},
		{"restart interrupted", restartInterrupted},
		{"process killed", func(f *faulted) { victims(f, syscall.SIGKILL) }},
		{"process exits", func(f *faulted) { victims(f, syscall.SIGUSR1) }},
		{"process executes", func(f *faulted) { victims(f, syscall.SIGUSR2) }},
		{"process forks", func(f *faulted) { victims(f, syscall.SIGHUP) }},
		{"process makes a thread", func(f *faulted) { victims(f, syscall.SIGALRM) }},
		{"full disk", fullDisk},
		{"few inodes", fewInodes},
		{"bad disk", badDisk},
		{"quota", quota},
		{"folder gone", goneFolder},
		{"file size limit", fileSizeLimit},
		{"few descriptors", fewFiles},
		{"two checkpoints at once", twoAtOnce},
		{"checkpoint during a restart", duringRestart},
		{"full pipe", fullPipe},
		{"broken pipe", brokenPipe},
		{"closed terminal", closedTerminal},
		{"other users", otherUsers},
		{"program ends in a snapshot", endsInSnapshot},
		{"agent killed in a snapshot", agentKilledInSnapshot},
		{"copy killed in a snapshot", copyKilled},
		{"little changes in an incremental snapshot", func(f *faulted) { incrementalSnapshot(f, "few", false) }},
		{"all changes in an incremental snapshot", func(f *faulted) { incrementalSnapshot(f, "all", true) }},
		{"agent killed in an incremental snapshot", agentKilledInIncrement},
		{"copy killed in an incremental snapshot", copyKilledInIncrement},
		{"agent killed at a step of a snapshot", agentKilledAtSnapshot},
		{"agent stopped at a step of a snapshot", agentStoppedAtSnapshot},
		{"copies killed at a step of a snapshot", copiesKilledAtSnapshot},
		{"middle process of a snapshot killed", middleKilled},
		{"errors in a snapshot", snapshotErrors},
		{"no memory for copies", noMemoryForCopies},
		{"agent killed in an incremental checkpoint", agentKilledIncremental},
	} {
		for _, id := range s.faultIdentities() {
			t.Run(testName(c.name, id.name), func(t *testing.T) {
				t.Parallel()
				c.run(s.newFaulted(t, id))
			})
		}
	}
}

// allStepsMet holds the lists of steps against what is reached.
func allStepsMet(f *faulted) {
	f.write("trace", "")
	f.order("trace: " + f.path("trace"))
	f.launchFaulty()
	for range 3 {
		f.checkpoint()
	}
	f.must("checkpoint", f.name, "--kill")
	f.wait(f.front)
	f.nothingLeft()
	f.order("trace: " + f.path("trace"))
	f.restarting("--namespaces", "always")
	f.running()
	last := faultpoint.OfRestart()
	f.await("the restart's last step", func() bool { return strings.Contains(f.read("trace"), string(last[len(last)-1])) })
	met := strings.Split(f.read("trace"), "\n")
	for _, step := range slices.Concat(faultpoint.OfCheckpoint(), faultpoint.OfInjection(), faultpoint.OfRestart(),
		[]faultpoint.Step{faultpoint.CommandConnected, faultpoint.CommandAnswered, faultpoint.Plugin("file", "precheckpoint")}) {
		if !slices.Contains(met, string(step)) {
			f.Errorf("nobody comes to the step %q", step)
		}
	}
	f.endWell()
}

// pluginSteps are the steps before what plugins do in a checkpoint.
func pluginSteps() []faultpoint.Step {
	return []faultpoint.Step{faultpoint.Plugin("file", "presuspend"), faultpoint.Plugin("file", "precheckpoint"),
		faultpoint.Plugin("socket", "precheckpoint"), faultpoint.Plugin("file", "claim-file"), faultpoint.Plugin("file", "save-process"),
		faultpoint.Plugin("timer", "save-process"), faultpoint.Plugin("file", "save"), faultpoint.Plugin("socket", "resume"),
		faultpoint.Plugin("file", "resume"), faultpoint.Plugin("file", "outcome")}
}

// agentKilled ends the agent, with the coordinator in it, at each step.
func agentKilled(f *faulted) {
	f.launchFaulty()
	f.checkpoint()
	for _, step := range faultpoint.OfCheckpoint() {
		f.agentKilledAt(string(step), slices.Contains(behindCommit(), step))
	}
	for _, step := range pluginSteps() {
		f.write("trace", "")
		f.order("trace: " + f.path("trace"))
		f.checkpoint()
		if strings.Contains(f.read("trace"), string(step)+"\n") {
			f.agentKilledAt(string(step), strings.HasSuffix(string(step), " outcome"))
		}
	}
	f.endWell()
}

// behindCommit lists the steps at which the new generation stands.
func behindCommit() []faultpoint.Step {
	steps := faultpoint.OfCheckpoint()
	return steps[slices.Index(steps, faultpoint.Renamed):]
}

// agentKilledAt has the agent die at a step of a checkpoint. The program, which
// is left alone, goes on; it is ended, and its last generation restarted.
func (f *faulted) agentKilledAt(step string, committed bool) {
	f.Helper()
	want := f.newest()
	if committed {
		want++
	}
	before := f.alone()
	f.order(step + ": kill")
	o := f.hiatus("checkpoint", f.name)
	switch beside := step == string(faultpoint.CopiesEnded); { // nothing waits for it: the commit is as it happens
	case beside && (o.code == 0 || f.newest() > want):
		want++
	case o.code != 1 || o.stderr == "":
		f.Errorf("%s: checkpoint: %s: want exit code 1 and a reason", step, o)
	}
	f.orphaned()
	f.unharmed()
	f.remain(step, before)
	f.killProgram()
	if got := f.newest(); got != want {
		f.Errorf("%s: the newest generation is %d, want %d", step, got, want)
	}
	f.again()
	f.checkpoint()
	f.tidy()
	if f.Failed() {
		f.Fatalf("at the step %q", step)
	}
}

// agentKilledInjecting ends the agent in the middle of injections: of the
// first, of one in the middle, and of some between.
func agentKilledInjecting(f *faulted) {
	f.launchFaulty()
	f.checkpoint()
	f.write("trace", "")
	f.order("trace: " + f.path("trace"))
	f.checkpoint()
	count := map[string]int{}
	for line := range strings.Lines(f.read("trace")) {
		count[strings.TrimSpace(line)]++
	}
	r := rand.New(rand.NewSource(int64(f.id.uid)))
	for _, step := range faultpoint.OfInjection() {
		n := count[string(step)]
		if n == 0 {
			f.Errorf("no injection comes to the step %q", step)
			continue
		}
		half := (n + 1) / 2 // the next checkpoint may have fewer
		for _, i := range []int{1, 1 + r.Intn(half), half} {
			f.agentKilledAt(fmt.Sprintf("%s#%d", step, i), false)
		}
	}
	f.endWell()
}

// agentKilledRestarting ends the agent at each step of a restart: nothing runs,
// and the image is as it was.
func agentKilledRestarting(f *faulted) {
	f.suspendFaulty()
	behindRelease := []faultpoint.Step{faultpoint.RestartReleased, faultpoint.RestartSupervised}
	for _, step := range faultpoint.OfRestart() {
		before, whole := f.progress(), f.hashImages() // with the mark of the restart before
		f.order(string(step) + ": kill")
		f.restarting("--namespaces", "always")
		f.orphaned()
		if slices.Contains(behindRelease, step) {
			f.unharmed() // it is on its own
			f.killProgram()
		}
		f.nothingLeft()
		// At the last hold it has begun to run, and ends with the agent.
		if now := f.progress(); now != before && step != faultpoint.RestartLastHold && !slices.Contains(behindRelease, step) {
			f.Errorf("%s: the program has run from %d to %d", step, before, now)
		}
		if f.hashImages() != whole && !slices.Contains(behindRelease, step) {
			f.Errorf("%s: the image has changed", step)
		}
		f.again()
		f.must("kill", f.name)
		f.wait(f.front)
		f.nothingLeft()
		if f.Failed() {
			f.Fatalf("at the step %q", step)
		}
	}
	f.again()
	f.endWell()
}

// hashImages tells whether anything of the images has changed.
func (f *faulted) hashImages() string {
	f.Helper()
	o := f.exec("sh", "-c", "cd images && find . -printf '%p %m %s %T@\\n' | sort && find . -type f | sort | xargs cksum")
	if o.code != 0 {
		f.Fatalf("%s", o)
	}
	return o.stdout
}

// agentStopped stops the agent at each step: the command says so, and the
// checkpoint goes on with the agent.
func agentStopped(f *faulted) {
	f.launchFaulty()
	agent := f.front.cmd.Process.Pid
	for i, step := range faultpoint.OfCheckpoint() {
		want := f.newest() + 1
		told := i%8 == 0 // a command looks after its coordinator once a second
		f.at(step, func(command *front) {
			if err := syscall.Kill(agent, syscall.SIGSTOP); err != nil {
				f.Fatal(err)
			}
			if told {
				if o := f.outcomeOf(command); o.code != 1 || !strings.Contains(o.stderr, "suspended") {
					f.Errorf("%s: checkpoint: %s: want exit code 1, and that the agent is suspended", step, o)
				}
			}
			if err := syscall.Kill(agent, syscall.SIGCONT); err != nil {
				f.Fatal(err)
			}
		})
		f.await("the generation", func() bool { return f.newest() == want })
		f.unharmed()
		f.order()
		f.must("status", f.name)
		f.idle()
	}
	f.endWell()
}

// idle waits until no checkpoint is in progress, whose command may be gone.
func (f *faulted) idle() {
	f.Helper()
	f.await("the end of the checkpoint", func() bool {
		return !strings.Contains(f.must("status", f.name, "--json"), `"checkpointing"`)
	})
}

// commandKilled ends the command that waits for the checkpoint, at each step,
// or at its own: the checkpoint goes on.
func commandKilled(f *faulted) {
	f.launchFaulty()
	for _, step := range faultpoint.OfCheckpoint() {
		want := f.newest() + 1
		f.at(step, func(command *front) {
			if err := command.cmd.Process.Kill(); err != nil {
				f.Fatal(err)
			}
			<-command.ended
		})
		f.await("the generation", func() bool { return f.newest() == want })
		f.unharmed()
		f.idle()
		f.tidy()
	}
	for _, step := range []faultpoint.Step{faultpoint.CommandConnected, faultpoint.CommandAnswered} {
		f.order(string(step) + ": kill")
		if o := f.hiatus("checkpoint", f.name); o.code != 128+9 {
			f.Errorf("%s: %s", step, o)
		}
		f.unharmed()
	}
	f.endWell()
}

// failing lists the steps at which an error of the kernel may come.
func failing() map[faultpoint.Step][]string {
	disk := []string{"EIO", "ENOSPC", "EDQUOT"}
	some := []string{"EIO"}
	return map[faultpoint.Step][]string{
		faultpoint.Asked: some, faultpoint.Begun: disk, faultpoint.Ordered: some, faultpoint.ProcessFrozen: some,
		faultpoint.Frozen: {"ENOMEM"}, faultpoint.Suspended: some, faultpoint.Opened: {"ENOMEM"}, faultpoint.Saved: some,
		faultpoint.ImageCreated: disk, faultpoint.SectionsWritten: disk, faultpoint.StripeWriting: disk, faultpoint.MemoryWritten: disk,
		faultpoint.StripeSyncing: disk, faultpoint.StripeSynced: disk, faultpoint.IndexWriting: disk,
		faultpoint.ImageSyncing: disk, faultpoint.ImageSynced: disk, faultpoint.FolderSynced: disk, faultpoint.Written: some,
		faultpoint.ManifestWriting: disk, faultpoint.ManifestSyncing: disk, faultpoint.Renaming: disk, faultpoint.Renamed: disk,
		faultpoint.Resumed:                         some,
		faultpoint.Plugin("file", "precheckpoint"): some, faultpoint.Plugin("socket", "precheckpoint"): some,
		faultpoint.Plugin("file", "claim-file"): some, faultpoint.Plugin("file", "save"): some,
	}
}

// checkpointErrors fails at each step: one clear error, and all is as before.
func checkpointErrors(f *faulted) {
	f.launchFaulty()
	f.checkpoint()
	for step, names := range failing() {
		for _, name := range names {
			want := f.newest()
			f.order(fmt.Sprintf("%s: error %s", step, name))
			o := f.hiatus("checkpoint", f.name)
			if o.code != 1 || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "fault at "+string(step)) {
				f.Errorf("%s %s: checkpoint: %s: want exit code 1 and one line with the reason", step, name, o)
			}
			f.tidy()
			if got := f.newest(); got != want {
				f.Errorf("%s %s: the newest generation is %d, want %d", step, name, got, want)
			}
			f.unharmed()
		}
		f.order()
		f.must("verify", f.images())
	}
	f.checkpoint()
	f.killProgram()
	f.again()
	f.endWell()
}

// restartErrors fails at each step of a restart.
func restartErrors(f *faulted) {
	f.suspendFaulty()
	whole, steps := f.hashImages(), faultpoint.OfRestart()
	for _, step := range steps[:slices.Index(steps, faultpoint.RestartReleasing)] {
		f.order(string(step) + ": error ENOMEM")
		o := f.hiatus("restart", f.images(), "--namespaces", "always", "--allow-changed-files")
		if o.code != 99 || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "fault at "+string(step)) {
			f.Errorf("%s: restart: %s: want exit code 99 and one line with the reason", step, o)
		}
		f.nothingLeft()
		if f.hashImages() != whole {
			f.Errorf("%s: the image has changed", step)
		}
	}
	f.again()
	f.endWell()
}

// signalsInRestart sends a signal before the program runs, and while the restart has not
// yet said that it does.
func signalsInRestart(f *faulted) {
	const program = `trap 'echo 2 >progress' USR1; trap 'exit 5' TERM; echo 1 >progress; while :; do sleep 0.02; done`
	f.front = f.run("launch", "--name", f.name, "--ckptdir", f.images(), "--", "sh", "-c", program)
	f.reach(1)
	for _, step := range []faultpoint.Step{faultpoint.RestartRead, faultpoint.RestartMemory, faultpoint.RestartReleased, faultpoint.RestartSupervised} {
		f.suspend()
		f.write("progress", "1\n")
		fifo := f.fifo()
		f.order(fmt.Sprintf("%s: wait %s", step, fifo))
		f.restarting()
		w := f.meet(fifo)
		f.signal(syscall.SIGUSR1)
		w.Close()
		f.await("the signal's effect after "+string(step), func() bool { return f.progress() == 2 })
		f.order()
	}
	f.signal(syscall.SIGTERM)
	f.ends(f.front, 5)
	f.gone()
}

// restartInterrupted gives a restart up, by a signal or hiatus kill, at each step before the
// program runs: nothing is left of it.
func restartInterrupted(f *faulted) {
	f.suspendFaulty()
	whole, steps := f.hashImages(), faultpoint.OfRestart()
	for i, step := range steps[slices.Index(steps, faultpoint.RestartJoined):slices.Index(steps, faultpoint.RestartReleasing)] {
		fifo := f.fifo()
		f.order(fmt.Sprintf("%s: wait %s", step, fifo))
		f.restarting("--namespaces", "always")
		w := f.meet(fifo)
		sig := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL}[i%4]
		if sig == syscall.SIGKILL {
			f.must("kill", f.name)
		} else {
			f.signal(sig)
		}
		if o := f.hiatus("kill", f.name, "--signal", "USR1"); o.code != 1 || !strings.Contains(o.stderr, "does not run yet") {
			f.Errorf("%s: a signal that ends no restart: %s", step, o)
		}
		w.Close()
		f.ends(f.front, 128+int(sig))
		f.front = nil
		if text := f.read("stderr"); !strings.HasSuffix(text, "the restart was given up: "+unix.SignalName(sig)+"\n") {
			f.Errorf("%s: the restart says %q", step, text)
		}
		f.nothingLeft()
		if f.hashImages() != whole {
			f.Errorf("%s: the image has changed", step)
		}
	}
	f.again()
	f.endWell()
}

// victims sends a signal to a process of the tree at each step: it dies, exits,
// executes, forks or makes a thread, at once or when it is let go. Others of
// the tree are not to notice.
func victims(f *faulted, sig syscall.Signal) {
	f.launchFaulty("victim")
	for _, step := range faultpoint.OfCheckpoint() {
		want := f.newest()
		o := f.at(step, func(*front) {
			pid := f.victim()
			if err := syscall.Kill(pid, sig); err != nil {
				f.Fatal(err)
			}
		})
		if o.code == 0 {
			want++
		} else if sig != syscall.SIGKILL || o.stderr == "" {
			// Only a process that dies while it is looked at may spoil it.
			f.Errorf("%s: checkpoint: %s", step, o)
		}
		if got := f.newest(); got != want {
			f.Errorf("%s: the newest generation is %d, want %d", step, got, want)
		}
		f.unharmed()
		f.tidy()
	}
	f.order()
	f.checkpoint()
	f.killProgram()
	f.again()
	f.endWell()
}

// victim is the process of one thread that does not catch SIGCHLD, and no child
// of its own. Pids tell nothing: they begin anew at some time.
func (f *faulted) victim() int {
	f.Helper()
	found := 0
	f.await("a victim", func() bool {
		all := map[int]int{} // and their parents
		for _, pid := range f.program() {
			s, err := procfs.ReadTaskStatus(pid, pid)
			if err == nil && s.Threads == 1 && s.State != 'Z' && s.SigCgt&(1<<(syscall.SIGCHLD-1)) == 0 {
				all[pid] = s.PPid
			}
		}
		for pid, parent := range all {
			if _, own := all[parent]; !own {
				found = pid
			}
		}
		return found != 0
	})
	return found
}
