package proc

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// area makes an XSAVE area with the components used, each of its own bytes.
func area(size int, layout []XComponent, used ...int) RegSet {
	b := make([]byte, size)
	for i := range xsaveHeader {
		b[i] = 0xaa
	}
	mask := uint64(3)
	for _, c := range layout {
		if slices.Contains(used, c.Bit) {
			mask |= 1 << c.Bit
			copy(b[c.Offset:], bytes.Repeat([]byte{byte(c.Bit)}, c.Size))
		}
	}
	le.PutUint64(b[xsaveHeader:], mask)
	return RegSet{ntX86Xstate, b}
}

func TestFitRegset(t *testing.T) {
	avx, wide, keys := XComponent{2, 576, 256}, XComponent{5, 1088, 64}, XComponent{9, 2688, 8}
	from := &CPUState{XSave: []XComponent{avx, wide, keys}}
	here := &CPUState{XSave: []XComponent{{2, 576, 256}, {9, 832, 8}}}

	got, err := fitRegset(area(2696, from.XSave, 2, 9), from, here, 840)
	if err != nil {
		t.Fatal(err)
	}
	want := area(840, here.XSave, 2, 9)
	le.PutUint64(want.Data[xsaveMask:], 1<<9|7)
	if !bytes.Equal(got.Data, want.Data) {
		t.Errorf("got %x, want %x", got.Data, want.Data)
	}
	if _, err := fitRegset(area(2696, from.XSave, 5), from, here, 840); err == nil || !strings.Contains(err.Error(), "AVX-512") {
		t.Errorf("got %v, want a refusal of a state that is not known here", err)
	}
	empty := area(2696, from.XSave, 5)
	clear(empty.Data[wide.Offset : wide.Offset+wide.Size])
	if got, err := fitRegset(empty, from, here, 840); err != nil || le.Uint64(got.Data[xsaveHeader:]) != 3 {
		t.Errorf("got %v, want a state that holds nothing left out", err)
	}
	plain := &CPUState{XSave: []XComponent{avx}}
	if got, err := fitRegset(area(2696, from.XSave, 9), from, plain, 832); err != nil || le.Uint64(got.Data[xsaveHeader:]) != 3 {
		t.Errorf("got %v, want protection keys left out", err)
	}
	if _, err := fitRegset(RegSet{ntX86Xstate, make([]byte, 64)}, from, here, 840); err == nil {
		t.Error("an area without a header was taken")
	}
	if got, _ := fitRegset(area(2696, from.XSave, 5), from, from, 2696); !bytes.Equal(got.Data, area(2696, from.XSave, 5).Data) {
		t.Error("an area was changed for its own processor")
	}
}

func TestCheckCPU(t *testing.T) {
	st := validState()
	st.CPU = readCPU()
	if len(st.CPU.Features) == 0 {
		t.Fatal("no features")
	}
	if err := st.checkXSave(); err != nil {
		t.Errorf("refused on its own processor: %v", err)
	}
	if lacks := st.MissingFeatures(); len(lacks) > 0 {
		t.Errorf("its own processor lacks %v", lacks)
	}
	st.CPU.Features = append(st.CPU.Features, "telepathy")
	if lacks := st.MissingFeatures(); !slices.Equal(lacks, []string{"telepathy"}) {
		t.Errorf("lacks %v, want the feature that is missing", lacks)
	}
	const unknown = 60
	size := len(st.Processes[0].Threads[0].Extra[0].Data)
	st.CPU.XSave = []XComponent{{unknown, xsaveHeaderEnd, 8}}
	st.Processes[0].Threads[0].Extra[0] = area(max(size, xsaveHeaderEnd+8), st.CPU.XSave, unknown)
	if err := st.checkXSave(); err == nil || !strings.Contains(err.Error(), "tid") || !strings.Contains(err.Error(), "processor state 60 in use") {
		t.Errorf("got %v, want a refusal of a state that is not known here", err)
	}
	for _, bad := range []XComponent{{1, 576, 8}, {63, 576, 8}, {2, 0, 8}, {2, 576, -1}, {2, 1 << 40, 8}, {2, 576, 1 << 40}} {
		c := CPUState{XSave: []XComponent{bad}}
		if c.validate(64<<10) == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
