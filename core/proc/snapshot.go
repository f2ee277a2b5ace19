package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/parallel"
)

// Memory is the content of a frozen tree's memory on its way into an image. It
// is written while the tree stands still, or from a Snapshot after its release.
type Memory struct {
	t        *Tree
	st       *State
	exes     exeSaver
	contents []Content

	copies  map[*Process]*copying
	held    []pageRun // read in the pause
	reserve reserve   // has what is held
	runs    []pageRun // has room for held
	room    uint64    // for more; 0: not known
}

// NewMemory takes charge of the memory that st, the tree's state, describes and
// of the data of plugins. The caller closes it.
func (t *Tree) NewMemory(st *State, contents []Content) *Memory {
	m := &Memory{t: t, st: st, exes: t.exes, contents: contents}
	t.exes = exeSaver{}
	if t.survey != nil {
		m.reserve, t.survey.reserve, m.room = t.survey.reserve, reserve{}, t.survey.room
		m.runs = t.survey.runs
	}
	return m
}

// Private is how much private memory the processes of the tree have, in bytes.
func (t *Tree) Private() (sum uint64) {
	for _, p := range t.procs {
		sum += p.private()
	}
	return sum
}

func (p *Process) private() uint64 { return p.status.RssAnon + p.status.VmSwap }

// fewPages is the private memory up to which reading it in the pause is shorter than
// a copy of the process.
const fewPages = 512 << 10

// Snapshot keeps all memory as it is now, so that the tree can be released
// before Write: by copies of the processes (fork(2)), and for what they would
// not have or would share, in a buffer; or all in the buffer, where that is
// shorter. adopter is the host id of the process to which orphans of the tree
// come.
//
// The error matches ErrNoCopy where that cannot be done, also for want of memory. It can then be
// written in the pause.
func (m *Memory) Snapshot(ctx context.Context, adopter int) error {
	err := m.snapshot(ctx, adopter)
	if err == nil {
		return nil
	}
	m.drop()
	m.t.tr.AwaitCopies()
	if errors.Is(err, ErrNoCopy) {
		if cerr := m.settleInPause(ctx); cerr != nil {
			return cerr
		}
	}
	return err
}

// itself is the source of memory that is read from the tree's own processes.
func itself(p *Process) *Process { return p }

// everything picks all mappings.
func everything(*Process, *MapState) bool { return true }

func (m *Memory) snapshot(ctx context.Context, adopter int) error {
	if done, err := m.holdLittle(ctx); done || err != nil || !m.t.copied() {
		return err
	}
	for i := range m.st.Processes {
		if ps := &m.st.Processes[i]; ps.Prctl.Subreaper {
			return fmt.Errorf("%w: process %d adopts orphans (prctl(2), PR_SET_CHILD_SUBREAPER), and would meet the copies", ErrNoCopy, ps.PID)
		}
	}
	m.copies = map[*Process]*copying{}
	for _, p := range m.t.procs {
		if !p.zombie && p.private() > fewPages {
			m.copies[p] = nil
		}
	}
	runs, err := m.pageRuns(ctx, m.runs[:0], func(p *Process, s *MapState) bool { return !m.isCopied(p, s) }, itself)
	if err != nil {
		return err
	}
	runs = append(runs, contentRuns(m.st, m.contents)...)
	if err := m.checkRoom(uint64(total(runs))); err != nil {
		return err
	}
	if err := m.makeCopies(ctx, adopter); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.SnapshotMade); err != nil {
		return err
	}
	return m.hold(ctx, runs)
}

// isCopied says whether a copy of p has the mapping, as it is now. Copies lack
// what the program keeps from its children, madvise(2), and share what it shares.
// Of huge pages of hugetlbfs a copy may lose its own when the program writes
// to them and the pool is empty (mm/hugetlb.c, unmap_ref_private), and of a file
// those behind the end when the program cuts it (mm/truncate.c, truncate_pagecache).
func (m *Memory) isCopied(p *Process, s *MapState) bool {
	_, copied := m.copies[p]
	return copied && s.content == contentPrivate && s.Huge == 0 && !s.cuttable && s.isInherited() && !slices.Contains(s.Flags, "wf")
}

// isInherited says whether children have the mapping, madvise(2), MADV_DONTFORK.
func (s *MapState) isInherited() bool { return !slices.Contains(s.Flags, "dc") }

// checkRoom makes sure that there is memory for what the program may write to
// while it is copied, and for what is held.
func (m *Memory) checkRoom(held uint64) error {
	need := held - min(held, m.reserve.size())
	for p := range m.copies {
		need += p.private()
	}
	var err error
	room := m.room
	if room == 0 {
		if room, err = memoryRoom(m.t.procs[0].host); err != nil {
			return err
		}
	}
	if need > room {
		return fmt.Errorf("%w: it may need %d MiB, and %d MiB are available", ErrNoCopy, need>>20, room>>20)
	}
	return nil
}

// makeCopies forks all processes at once: the kernel copies the page tables
// of several beside each other.
func (m *Memory) makeCopies(ctx context.Context, adopter int) error {
	return m.t.tr.Do(func() error {
		m.t.tr.copies.sweep()
		copied := slices.Collect(maps.Keys(m.copies))
		refused := m.t.tr.each(copied, func(p *Process) (err error) {
			m.copies[p], err = p.startCopy(ctx, adopter)
			return err
		})
		started := slices.DeleteFunc(copied, func(p *Process) bool { return m.copies[p] == nil })
		return errors.Join(refused, m.t.tr.each(started, func(p *Process) error { return m.copies[p].finish(ctx) }))
	})
}

func total(runs []pageRun) (sum int64) {
	for _, r := range runs {
		sum += int64(r.len)
	}
	return sum
}

// Snapped says whether the tree may run on before Write.
func (m *Memory) Snapped() bool { return m.copies != nil }

// AskCopies completes the tree's state by what the copies know too. It comes before
// the state is encoded, and is not needed where nothing is Snapped.
func (m *Memory) AskCopies(ctx context.Context) error {
	if len(m.copies) == 0 {
		return nil
	}
	return m.explain(m.readPolicies(ctx, m.copyOf))
}

// readPolicies asks for what Inspect has left out.
func (m *Memory) readPolicies(ctx context.Context, source func(*Process) *Process) error {
	for i, p := range m.t.procs {
		if p.surveyed == nil {
			continue
		}
		if err := source(p).readPolicies(ctx, m.st.Processes[i].Maps, (*MapState).isInherited); err != nil {
			return err
		}
	}
	return nil
}

func (m *Memory) copyOf(p *Process) *Process { return m.copies[p].copy }

// Write writes all memory that the image must hold, with as many writers as
// w has.
func (m *Memory) Write(ctx context.Context, w *image.Writer, progress func(done, total int64)) error {
	pick, source := everything, itself
	runs := m.exes.runs(m.st)
	if m.Snapped() {
		pick = m.isCopied
		source = m.copyOf
		runs = append(runs, m.held...)
	} else {
		runs = append(runs, contentRuns(m.st, m.contents)...)
	}
	own, err := m.pageRuns(ctx, nil, pick, source)
	if err == nil {
		runs = append(runs, own...)
		err = m.writeConfirmed(ctx, runs, w, progress)
	}
	if err == nil {
		err = m.confirmFiles()
	}
	if err == nil {
		err = faultpoint.At(faultpoint.MemoryWritten)
	}
	return m.explain(err)
}

// writeConfirmed writes while what was taken from a survey is proved, and no longer than that fails.
func (m *Memory) writeConfirmed(ctx context.Context, runs []pageRun, w *image.Writer, progress func(done, total int64)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	confirmed := make(chan error, 1)
	go func() {
		err := m.confirmCopied()
		if err != nil {
			stop()
		}
		confirmed <- err
	}()
	err := writeRuns(ctx, runs, w, progress)
	cerr := <-confirmed
	if cerr != nil && errors.Is(err, context.Canceled) {
		return cerr
	}
	return errors.Join(err, cerr)
}

// confirmCopied proves by the copies what was taken from a survey.
func (m *Memory) confirmCopied() error {
	if len(m.copies) == 0 { // it was proved in the pause
		return nil
	}
	return m.confirm(m.copyOf)
}

// confirmFiles looks whether a file was cut while a copy was read that may have had pages of it for
// itself: a cut takes them from the copy too (mm/truncate.c, truncate_pagecache), and what comes
// after them is the file's. Those that the tree itself might cut have been read in the pause.
func (m *Memory) confirmFiles() error {
	seen := map[int]bool{}
	for i, p := range m.t.procs {
		ps := &m.st.Processes[i]
		for j := range ps.Maps {
			s := &ps.Maps[j]
			if s.Kind != MapFile || !s.changed || seen[s.Ref] || !m.isCopied(p, s) {
				continue
			}
			seen[s.Ref] = true
			if f := &m.st.Refs[s.Ref]; !f.Write && !m.st.isStill(f) {
				return fmt.Errorf("mapped file %s: %w", f.Path, errChangedFile)
			}
		}
	}
	return nil
}

// isStill says whether a file has the size and the time of change that it had in the pause. One that has
// lost its name is not cut.
func (st *State) isStill(f *MappedFile) bool {
	var now unix.Stat_t
	if err := unix.Stat(rootedAt(st.root, f.Path), &now); err != nil || now.Dev != f.Dev || now.Ino != f.Ino {
		return true
	}
	return now.Size == f.Size && timeOf(now.Mtim).Equal(f.Mtime)
}

// confirm proves what was taken from a survey.
func (m *Memory) confirm(source func(*Process) *Process) error {
	var errs []error
	for _, p := range m.t.procs {
		if p.surveyed != nil {
			errs = append(errs, p.confirm(source(p)))
		}
	}
	return errors.Join(errs...)
}

// settleInPause proves and completes by the tree's own processes what was taken from a
// survey, where there are no copies to tell it.
func (m *Memory) settleInPause(ctx context.Context) error {
	return errors.Join(m.confirm(itself), m.readPolicies(ctx, itself))
}

// explain tells of copies that somebody has ended, by which nothing was lost
// but the checkpoint.
func (m *Memory) explain(err error) error {
	if err == nil {
		return nil
	}
	patience := 0 * time.Second
	if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ESRCH) {
		patience = time.Second // a copy has lost its memory, and is about to end
	}
	for p, c := range m.copies {
		if c != nil && c.copy != nil && pidfdEnds(c.pidfd, patience) {
			return fmt.Errorf("pid %d: its copy (process %d) was ended while it was written: %w", p.pid, c.copy.pid, err)
		}
	}
	return err
}

// pidfdEnds says whether the process of a pidfd has ended, or does so soon.
func pidfdEnds(pidfd int, patience time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(patience); ; {
		n, err := unix.Poll(fds, max(0, int(time.Until(deadline).Milliseconds())))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

func writeRuns(ctx context.Context, runs []pageRun, w *image.Writer, progress func(done, total int64)) error {
	size := 0 // of what is not held
	for i := range runs {
		if runs[i].held == nil {
			size = max(size, int(runs[i].len))
		}
	}
	room, err := newBuffers(w.PageWriters(), size)
	if err != nil {
		return err
	}
	defer room.free()
	done := tally{total: total(runs), report: progress}
	return parallel.Each(ctx, runs, w.PageWriters(), func(i int, r *pageRun) error {
		if err := r.write(w.PageWriter(i), room.of(i)); err != nil {
			return err
		}
		done.add(int64(r.len))
		return nil
	})
}

// Close ends the copies and gives back all that was held. It may be called
// twice. Copies take a while to give back their memory: [Tracer.AwaitCopies].
func (m *Memory) Close() {
	m.drop()
	m.exes.close()
}

func (m *Memory) drop() {
	if len(m.copies) > 0 {
		_ = faultpoint.At(faultpoint.CopiesEnding)
		var dying []*copying
		for _, c := range m.copies {
			if c != nil && c.copy != nil {
				c.kill()
				dying = append(dying, c)
			}
		}
		m.t.tr.ending.Go(func() { m.t.tr.buryCopies(dying) })
	}
	m.reserve.free()
	m.copies, m.held = nil, nil
}
