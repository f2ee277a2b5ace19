package socket

import (
	"strings"
	"testing"
)

func TestMapNames(t *testing.T) {
	now := func(path string) string {
		if rest, ok := strings.CutPrefix(path, "/old/"); ok {
			return "/new/" + rest
		}
		return path
	}
	s := state{UNIX: map[int]unixSocket{
		1: {Name: []byte("/old/a"), File: &socketFile{Path: "/old/b"}, Queue: []message{{From: []byte("/old//c")}}},
		2: {Name: []byte("rel"), File: &socketFile{Dir: "/old/d", Path: "/old/d/rel"}, PeerName: []byte("/old/a")},
		3: {Name: []byte("\x00/old/abstract"), PeerName: []byte("/other")},
	}}
	if err := s.mapNames(now); err != nil {
		t.Fatal(err)
	}
	one, two, three := s.UNIX[1], s.UNIX[2], s.UNIX[3]
	for got, want := range map[string]string{
		string(one.Name): "/new/a", one.File.Path: "/new/b", string(one.Queue[0].From): "/new/c",
		string(two.Name): "rel", two.File.Dir: "/new/d", two.File.Path: "/new/d/rel", string(two.PeerName): "/new/a",
		string(three.Name): "\x00/old/abstract", string(three.PeerName): "/other",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	long := state{UNIX: map[int]unixSocket{1: {Name: []byte("/old/" + strings.Repeat("x", maxName-5)), File: &socketFile{}}}}
	err := long.mapNames(func(path string) string { return "/longer" + path })
	if err == nil || !strings.Contains(err.Error(), "allows 108 bytes") {
		t.Errorf("a name that is too long: %v", err)
	}
}
