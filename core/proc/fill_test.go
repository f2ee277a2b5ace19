package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/core/procfs"
)

// Private anonymous memory comes back whatever its protection, by
// userfaultfd(2) and without, and its flags are those it had.
func TestGenerationsFillMemory(t *testing.T) {
	for how, without := range map[string]error{"by userfaultfd": nil, "without": unix.ENOSYS} {
		t.Run(how, func(t *testing.T) {
			x := newSubject(t, newTracer(t))
			x.start(exec.Command(built(t, "fill")))
			huge, _ := strings.CutPrefix(x.untilReady()[0], "huge ")
			before := anonHuge(t, x.pid, huge)
			for range 2 {
				x.atRest()
				g := x.save()
				g.prepare = func(r *Restorer) { r.noUserfault = without }
				r := x.restore(g, true)
				x.assertWhole(g, r)
				if r.noUserfault != nil && without == nil {
					t.Log("userfaultfd(2) is not to be had here")
				}
				if d := differences(t, g.st, x.look()); len(d) > 0 {
					t.Errorf("it differs:\n%s", strings.Join(d, "\n"))
				}
				x.order("check")
				if after := anonHuge(t, x.pid, huge); after < before {
					t.Errorf("%d KiB of huge pages, before %d", after, before)
				}
			}
		})
	}
}

// anonHuge returns how much of a mapping is in transparent huge pages, in KiB.
func anonHuge(tb testing.TB, pid int, start string) (kib int) {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n"+start+"-")
	if !ok {
		tb.Fatalf("no mapping at %s", start)
	}
	_, rest, _ = strings.Cut(rest, "AnonHugePages:")
	return atoi(tb, strings.Fields(rest)[0])
}

// Of a damaged image nothing but blank processes comes to be, which have no
// memory of the program's nor any descriptor, and nothing stays.
func TestGenerationsStopAtDamage(t *testing.T) {
	x := newSubject(t, newTracer(t))
	x.start(exec.Command(built(t, "fill")))
	x.untilReady()
	g := x.save()
	e := g.img.Extents()[len(g.img.Extents())/2]
	f, err := os.OpenFile(g.img.StripeFile(int(e.Stripe)).Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, int64(e.Offset)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, int64(e.Offset)); err != nil {
		t.Fatal(err)
	}
	var hosts []int
	g.prepare = func(r *Restorer) { hosts = hostPIDs(r) }
	_, step, err := g.attempt(t, x.tr, true)
	if errors.Is(err, ErrNoNamespaces) {
		t.Skip(err)
	}
	if _, damaged := errors.AsType[*image.FormatError](err); step != "Fill" || !damaged {
		t.Fatalf("%s: %v", step, err)
	}
	own, err := procfs.Children(os.Getpid())
	own = slices.DeleteFunc(own, func(pid int) bool { return x.others[pid] })
	if err != nil || len(own) > 0 || len(alive(hosts)) > 0 {
		t.Errorf("children %v, processes %v of %v are left (%v)", own, alive(hosts), hosts, err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, int64(e.Offset)); err != nil {
		t.Fatal(err)
	}
	g.prepare = nil
	x.restore(g, true)
	x.order("check")
}

// Where a page is already, it is written over.
func TestFillOverPages(t *testing.T) {
	tr := newTracer(t)
	r := remadeTree(t, tr)
	defer r.Abort()
	p, page := r.Procs()[0], os.Getpagesize()
	f := &filler{p: p, uffd: -1}
	defer f.close()
	err := tr.Do(func() error {
		at, err := p.single(soon(t), p.threads[0], sys(unix.SYS_MMAP, 0, uint64(4*page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uint64(0), 0))
		if err != nil {
			return err
		}
		f.areas = []fillArea{{start: uint64(at), end: uint64(at) + uint64(4*page)}}
		return errors.Join(p.writeMem(uint64(at)+uint64(2*page), []byte("there")), r.openUserfault(soon(t), f))
	})
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Repeat([]byte("content "), 4*page/8)
	whole, err := f.place(want, f.areas[0].start)
	if err != nil || !whole {
		t.Fatal(whole, err)
	}
	got := make([]byte, len(want))
	if err := p.readMem(f.areas[0].start, got); err != nil || !slices.Equal(got, want) {
		t.Errorf("it holds something else (%v)", err)
	}
	if whole, err := f.place(want, f.areas[0].start+uint64(2*page)); err != nil || whole {
		t.Errorf("half of it lies outside: %v, %v", whole, err)
	}
}
