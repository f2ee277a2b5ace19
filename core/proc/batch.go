package proc

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// batch is a plugin's calls as they are run. An argument that is known only in
// its turn is copied into the record of its call by a process_vm_readv(2) of
// the process on itself, just before.
type batch struct {
	run    []call
	place  []int  // of each of the plugin's calls in run
	iovecs []byte // for the copies; they stand behind the last record
}

// Where a record has its arguments and its result.
const (
	recordArgs = 8
	recordRet  = recordArgs + 6*8
)

func (p *Process) newBatch(calls []plugin.Call) (*batch, error) {
	b := &batch{place: make([]int, len(calls))}
	copies := 0
	for i, c := range calls {
		copies += len(c.Sources)
		b.place[i] = i + copies
	}
	total := len(calls) + copies
	const iovecSize = 16
	if copies > 0 && total*recordSize+copies*2*iovecSize > blobRecords {
		return nil, fmt.Errorf("pid %d: a batch of %d calls, %d of them with sources, is too long for one stop", p.pid, total, copies)
	}
	records := p.inj.base + blobRecordsOff
	iovecs := records + uint64(total*recordSize)
	for i, c := range calls {
		own := records + uint64(b.place[i]*recordSize)
		for _, s := range c.Sources {
			from := s.Addr
			if from == 0 {
				if s.Result < 0 || s.Result >= i {
					return nil, fmt.Errorf("pid %d: call %d of a batch wants the result of call %d", p.pid, i, s.Result)
				}
				from = records + uint64(b.place[s.Result]*recordSize) + recordRet
			}
			if s.Arg < 0 || s.Arg >= len(c.Args) {
				return nil, fmt.Errorf("pid %d: call %d of a batch has no argument %d", p.pid, i, s.Arg)
			}
			at := iovecs + uint64(len(b.iovecs))
			for _, v := range []uint64{own + recordArgs + uint64(s.Arg)*8, 8, from, 8} {
				b.iovecs = le.AppendUint64(b.iovecs, v)
			}
			b.run = append(b.run, sys(unix.SYS_PROCESS_VM_READV, uint64(p.threads[0].TID), at, 1, at+iovecSize, 1, 0).
				as("process_vm_readv of an argument"))
		}
		one := call{nr: c.Nr, ret: recordPending}
		for j, a := range c.Args {
			one.args[j] = uint64(a)
		}
		if !c.MayFail {
			one.flags = callStop
		}
		if c.Nr == plugin.SiftRing {
			one.flags |= callSift
		}
		b.run = append(b.run, one)
	}
	return b, nil
}
