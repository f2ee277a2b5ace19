package plugintest

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// RoundTrip takes open files through a checkpoint and a restart within the
// test process. The files that setup returns are claimed by one plugin, whose
// state a second one loads; the second reopens them, and the new ones take the
// place of the old: the same numbers, each description shared as before, with
// close-on-exec as before. Then check looks at them.
//
// The calls are those of the contract, in its order: PreSuspend,
// PreCheckpoint, ClaimFile, SaveProcess, Save, Contents, Resume and Hold; then
// Load, Restart, ReopenFile, FillFiles, ContentTarget, RestoreProcess, Running
// and Hold, with [Self] as the one process. No
// plugin may leave a descriptor open behind.
//
// Use plain descriptors: an os.File that waits in the runtime's poller does
// not notice that another file has taken its number.
func RoundTrip(t *testing.T, def plugin.Definition, setup func(t *testing.T) (fds []int), check func(t *testing.T, fds []int)) {
	t.Helper()
	RoundTripOn(t, def, NewHost(t), setup, check)
}

// RoundTripOn is RoundTrip with a host that the test has prepared, which both
// plugins use.
func RoundTripOn(t *testing.T, def plugin.Definition, h *Host, setup func(t *testing.T) (fds []int), check func(t *testing.T, fds []int)) {
	t.Helper()
	trip := trip{def: def, self: Self(t), host: h}
	fds := setup(t)
	files := OpenFiles(t, fds...)

	before := openDescriptors(t)
	files, state, contents := trip.checkpoint(t, files)
	requireSame(t, before, "checkpoint and Resume")
	trip.restart(t, files, state, contents)
	requireSameNumbers(t, before, "restart")
	if !t.Failed() {
		check(t, fds)
	}
}

type trip struct {
	def  plugin.Definition
	self *Process
	host *Host
}

// start makes a plugin that keeps open files.
func (r trip) start(t *testing.T) (plugin.Plugin, plugin.FileClaimer) {
	t.Helper()
	p, err := r.def.New(r.host)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	claimer, ok := p.(plugin.FileClaimer)
	if !ok {
		t.Fatalf("plugin %s is no plugin.FileClaimer", r.def.Name)
	}
	return p, claimer
}

// checkpoint claims files, and what they hold, and returns all of them, the
// state and the contents.
func (r trip) checkpoint(t *testing.T, files []plugin.OpenFile) ([]plugin.OpenFile, []byte, []content) {
	t.Helper()
	p, claimer := r.start(t)
	r.handle(t, p, plugin.PreSuspend)
	r.handle(t, p, plugin.PreCheckpoint)
	held := heldFiles{all: files}
	defer held.close()
	for i := 0; i < len(held.all); i++ {
		f := held.all[i]
		f.Hold = held.hold
		if err := claimer.ClaimFile(t.Context(), f); err != nil {
			t.Fatalf("ClaimFile of open file %d (%s): %v", f.ID, f.Link, err)
		}
	}
	if saver, ok := p.(plugin.ProcessSaver); ok {
		if err := saver.SaveProcess(t.Context(), r.self); err != nil {
			t.Fatalf("SaveProcess: %v", err)
		}
	}
	var state bytes.Buffer
	if stater, ok := p.(plugin.Stater); ok {
		if err := stater.Save(t.Context(), &state); err != nil {
			t.Fatalf("Save: %v", err)
		}
	}
	contents := readContents(t, p)
	r.handle(t, p, plugin.Resume)
	r.hold(t, p, plugin.Resume)
	return held.all, state.Bytes(), contents
}

// heldFiles is all open files of a round trip, those among them that only
// others hold.
type heldFiles struct {
	all []plugin.OpenFile
	fds []int
}

// hold is plugin.OpenFile's Hold.
func (h *heldFiles) hold(fd int) (id int, err error) {
	for _, f := range h.all {
		known, err := f.Dup()
		if err != nil {
			return 0, err
		}
		same, err := sameDescription(known, fd)
		unix.Close(known)
		if err != nil || same {
			return f.ID, err
		}
	}
	if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return 0, err
	}
	h.fds = append(h.fds, fd)
	f, err := describe(len(h.all)+1, []int{fd})
	if err != nil {
		return 0, err
	}
	f.Refs = nil
	h.all = append(h.all, f)
	return f.ID, nil
}

func (h *heldFiles) close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
}

// content is a plugin.Content with its data.
type content struct {
	plugin.Content
	data [][]byte // of each range
}

// readContents reads what the plugin keeps beside its state.
func readContents(t *testing.T, p plugin.Plugin) (contents []content) {
	t.Helper()
	keeper, ok := p.(plugin.ContentKeeper)
	if !ok {
		return nil
	}
	list, err := keeper.Contents(t.Context())
	if err != nil {
		t.Fatalf("Contents: %v", err)
	}
	for _, c := range list {
		k := content{Content: c}
		end := int64(0)
		for _, r := range c.Data {
			if r.Start < end || r.End <= r.Start || r.End > c.Size {
				t.Fatalf("Contents: range %+v in %d bytes, behind %d", r, c.Size, end)
			}
			end = r.End
			data := make([]byte, r.End-r.Start)
			if _, err := c.From.ReadAt(data, r.Start); err != nil && err != io.EOF {
				t.Fatalf("Contents: read at %d: %v", r.Start, err)
			}
			k.data = append(k.data, data)
		}
		contents = append(contents, k)
	}
	return contents
}

// writeContents fills what the plugin has made.
func writeContents(t *testing.T, p plugin.Plugin, contents []content) {
	t.Helper()
	for _, c := range contents {
		w, err := p.(plugin.ContentKeeper).ContentTarget(t.Context(), c.Object, c.Size)
		if err != nil {
			t.Fatalf("ContentTarget of %d: %v", c.Object, err)
		}
		for i, r := range c.Data {
			if _, err := w.WriteAt(c.data[i], r.Start); err != nil {
				t.Fatalf("content %d: write at %d: %v", c.Object, r.Start, err)
			}
		}
	}
}

// restart loads state in a plugin of its own, which makes files again.
func (r trip) restart(t *testing.T, files []plugin.OpenFile, state []byte, contents []content) {
	t.Helper()
	p, claimer := r.start(t)
	if stater, ok := p.(plugin.Stater); ok {
		if err := stater.Load(t.Context(), r.def.State, bytes.NewReader(state)); err != nil {
			t.Fatalf("Load of %s: %v", state, err)
		}
	}
	r.handle(t, p, plugin.Restart)
	made := make([]int, len(files))
	byID := make(map[int]int, len(files))
	for i, f := range files {
		fd, err := claimer.ReopenFile(t.Context(), Reopened(f))
		if err != nil {
			t.Fatalf("ReopenFile of what was open file %d (%s): %v", f.ID, f.Link, err)
		}
		made[i], byID[f.ID] = fd, fd
	}
	if filler, ok := p.(plugin.FileFiller); ok {
		if err := filler.FillFiles(t.Context(), []plugin.Process{r.self}, byID); err != nil {
			t.Fatalf("FillFiles: %v", err)
		}
	}
	writeContents(t, p, contents)
	// All are made before the first is put in place, as in a restart. dup3
	// closes the old one.
	for i, f := range files {
		install(t, made[i], f.Refs)
	}
	if saver, ok := p.(plugin.ProcessSaver); ok {
		if err := saver.RestoreProcess(t.Context(), r.self); err != nil {
			t.Fatalf("RestoreProcess: %v", err)
		}
	}
	r.handle(t, p, plugin.Running)
	publish(t, p)
	r.hold(t, p, plugin.Running)
}

func publish(t *testing.T, p plugin.Plugin) {
	t.Helper()
	publisher, ok := p.(plugin.Publisher)
	if !ok {
		return
	}
	if err := publisher.Publish(t.Context()); err != nil {
		t.Fatalf("Publish: %v", err)
	}
	publisher.Published()
}

func (r trip) hold(t *testing.T, p plugin.Plugin, k plugin.Kind) {
	t.Helper()
	holder, ok := p.(plugin.Holder)
	if !ok {
		return
	}
	if err := holder.Hold(t.Context(), plugin.Event{Kind: k, Generation: 1, Procs: []plugin.Process{r.self}}); err != nil {
		t.Fatalf("Hold behind %s: %v", k, err)
	}
}

func (r trip) handle(t *testing.T, p plugin.Plugin, k plugin.Kind) {
	t.Helper()
	if !slices.Contains(r.def.Kinds, k) {
		return
	}
	if err := p.Handle(t.Context(), plugin.Event{Kind: k, Generation: 1, Procs: []plugin.Process{r.self}}); err != nil {
		t.Fatalf("Handle of %s: %v", k, err)
	}
}

// install puts fd in the place of refs and closes it.
func install(t *testing.T, fd int, refs []plugin.FileRef) {
	t.Helper()
	for _, ref := range refs {
		flags := 0
		if ref.Cloexec {
			flags = unix.O_CLOEXEC
		}
		if err := unix.Dup3(fd, ref.FD, flags); err != nil {
			t.Fatalf("dup3 of fd %d to fd %d: %v", fd, ref.FD, err)
		}
	}
	if err := unix.Close(fd); err != nil {
		t.Fatalf("close of fd %d: %v", fd, err)
	}
}

// requireSameNumbers is requireSame for descriptors that were made again:
// their links may differ, as a new pipe has a new inode.
func requireSameNumbers(t testing.TB, before descriptors, what string) {
	t.Helper()
	numbers := func(d descriptors) descriptors {
		plain := descriptors{}
		for fd := range d {
			plain[fd] = ""
		}
		return plain
	}
	for _, change := range numbers(before).changes(numbers(openDescriptors(t))) {
		t.Errorf("%s: %s", what, change)
	}
}
