package proc

import "testing"

// TestSpare: the room of one checkpoint is that of the next, where it is enough and not too much.
func TestSpare(t *testing.T) {
	var s spare
	use := func(size uint64) *byte {
		r := reserve{spare: &s}
		r.prepare(size)
		defer r.free()
		if len(r.parts) != 1 || uint64(len(r.parts[0])) < size {
			t.Fatalf("%d parts for %d bytes", len(r.parts), size)
		}
		clear(r.parts[0])
		return &r.parts[0][0]
	}
	first := use(5 << 20)
	for _, size := range []uint64{5 << 20, 1 << 20, 4 << 20} {
		if use(size) != first {
			t.Errorf("other memory for %d bytes", size)
		}
	}
	large := use(9 << 20)
	if large == first {
		t.Error("9 MiB in the room of 5")
	}
	if use(5<<20) != large {
		t.Error("the larger room was not kept")
	}
	use(mostSpare + 1)
	if len(s.mem) > mostSpare {
		t.Errorf("%d bytes are kept", len(s.mem))
	}
}
