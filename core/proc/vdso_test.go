package proc

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/hiatus-project/hiatus/core/procfs"
)

// anotherKernel makes the vdso of the image another one than that of this
// kernel, by a byte behind its ELF image.
func anotherKernel(st *State) { st.Vdso[len(st.Vdso)-1] ^= 0xff }

// TestRestoreOnAnotherVdso restarts a program twice in a row on a kernel with
// another vdso: its clocks go on by the vdso, as it checks itself.
func TestRestoreOnAnotherVdso(t *testing.T) {
	for mode, fresh := range namespaceModes() {
		t.Run(mode, func(t *testing.T) {
			x := newSubject(t, newTracer(t))
			x.start(command(built(t, "clocks", "-O1", "-pthread")))
			x.untilReady()
			for range 2 {
				g := x.save()
				anotherKernel(g.st)
				if err := g.st.checkVdso(); err != nil {
					t.Fatal(err)
				}
				r := x.restore(g, fresh)
				maps, err := procfs.ReadMaps(r.HostPID(x.main(g)))
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range maps {
					if want := g.st.Processes[0].vdsoOf(); v.Start == want.Start && (v.Path != "" || v.Prot() != want.Prot) {
						t.Errorf("at the old vdso: %+v, want a copy", v)
					}
				}
				for _, line := range x.order("clocks") {
					if line != "clocks right" {
						t.Error(line)
					}
				}
			}
		})
	}
}

func TestPatchedVdso(t *testing.T) {
	h, err := readHostVdso()
	if err != nil || h.bytes == nil {
		t.Fatalf("this kernel gives no vdso: %v", err)
	}
	const base = 0x123456789000
	got, err := patchedVdso(h.bytes, h.bytes, base)
	if err != nil {
		t.Fatal(err)
	}
	functions, err := vdsoFunctions(h.bytes)
	if err != nil || len(functions) == 0 {
		t.Fatalf("functions %v, %v", functions, err)
	}
	for _, f := range functions {
		code := got[f.start:]
		switch name := f.baseName(); name {
		case "rt_sigreturn":
			if !bytes.HasPrefix(code, h.bytes[f.start:f.start+8]) {
				t.Errorf("%s was changed", f.name)
			}
		case "getrandom":
			if !bytes.HasPrefix(code, callCode(vdsoCalls[name])) {
				t.Errorf("%s does not make the call", f.name)
			}
		default:
			if !bytes.HasPrefix(code, jumpCode(base+f.start)) {
				t.Errorf("%s does not lead to itself", f.name)
			}
		}
	}
	if !bytes.Equal(vdsoCode("clock_gettime", nil), callCode(vdsoCalls["clock_gettime"])) || !bytes.Equal(vdsoCode("none", nil), failCode()) {
		t.Error("a function that is missing here makes the call, or fails where there is none")
	}
	for n := range len(h.bytes) { // an image may be damaged
		bad := bytes.Clone(h.bytes)
		bad[n] ^= 0xff
		if out, err := patchedVdso(bad, h.bytes, base); err == nil && len(out) != len(bad) {
			t.Fatalf("byte %d changed: %d bytes of %d", n, len(out), len(bad))
		}
	}
}

const vdsoAt = 0x7fff00000000

// setVdso gives the first process of a state a vdso, and no other.
func setVdso(st *State, b []byte) {
	for i := range st.Processes {
		ps := &st.Processes[i]
		ps.Maps = slices.DeleteFunc(ps.Maps, func(m MapState) bool { return m.Kind == MapVdso })
	}
	st.Vdso = b
	st.Processes[0].Maps = append(st.Processes[0].Maps,
		MapState{Start: vdsoAt, End: vdsoAt + uint64(len(b)), Kind: MapVdso, Path: "[vdso]", Prot: 5})
}

func TestCheckVdso(t *testing.T) {
	h, err := readHostVdso()
	if err != nil {
		t.Fatal(err)
	}
	state := func() *State {
		st := validState()
		setVdso(st, bytes.Clone(h.bytes))
		if err := st.validateVdso(); err != nil {
			t.Fatal(err)
		}
		return st
	}
	if err := state().checkVdso(); err != nil {
		t.Errorf("refused on its own kernel: %v", err)
	}
	other := state()
	anotherKernel(other)
	if err := other.checkVdso(); err != nil {
		t.Errorf("refused on another kernel: %v", err)
	}
	other.Processes[0].Threads[0].Regs.setPC(vdsoAt + 1)
	if err := other.checkVdso(); err == nil || !strings.Contains(err.Error(), "was stopped") {
		t.Errorf("got %v, want a refusal of a thread within the vdso", err)
	}
	junk := state()
	junk.Vdso = make([]byte, len(h.bytes))
	if err := junk.checkVdso(); err == nil || !strings.Contains(err.Error(), "vdso") {
		t.Errorf("got %v, want a refusal of a vdso that is none", err)
	}
	short := state()
	short.Vdso = short.Vdso[:64]
	if err := short.validateVdso(); err == nil {
		t.Error("a vdso shorter than its mapping was taken")
	}
}
