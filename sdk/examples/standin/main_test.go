package main

import (
	"testing"

	"github.com/hiatus-project/hiatus/sdk"
	"github.com/hiatus-project/hiatus/sdk/abi"
	"github.com/hiatus-project/hiatus/sdk/sdktest"
)

func TestStandIn(t *testing.T) {
	h := sdktest.New(t, standin{})
	const link = "anon_inode:[userfaultfd]"
	h.Values = `{"links": {"` + link + `": "/old"}}`
	h.OpenFiles = []sdk.File{{PID: 5, FD: 3, Link: "/a"}, {PID: 5, FD: 4, Link: link}}
	if err := h.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if len(h.Owned) != 1 || h.Owned[0].FD != 4 || string(h.Owned[0].Bytes) != link || h.Owned[0].Reopen.Path != "/old" {
		t.Fatalf("owned %+v", h.Owned)
	}
	ref := abi.FDRef{PID: 5, FD: 4}
	h.Kept[ref] = h.Owned[0].Bytes
	h.Values = `{"links": {"` + link + `": "/new"}}`
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	if r := h.Reopened[ref]; r.Path != "/new" || string(r.Send) != "in place of "+link+"\n" {
		t.Errorf("reopened %+v", r)
	}
}
