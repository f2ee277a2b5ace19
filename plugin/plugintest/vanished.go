package plugintest

import (
	"context"
	"fmt"
	"syscall"

	"github.com/hiatus-project/hiatus/plugin"
)

// vanished is a process that was killed while it was stopped: everything
// about it fails as ptrace(2) and /proc would.
type vanished struct{}

// vanishedPID is above the greatest pid_max that the kernel allows, 1<<22, so
// that it names no process.
const vanishedPID = 1<<22 + 1

func (vanished) PID() int                 { return vanishedPID }
func (vanished) HostPID() int             { return vanishedPID }
func (vanished) Threads() []plugin.Thread { return nil }

func (vanished) ReadAt([]byte, int64) (int, error)  { return 0, gone("read of memory") }
func (vanished) WriteAt([]byte, int64) (int, error) { return 0, gone("write of memory") }

func (vanished) PendingSignals() ([][]byte, error) { return nil, gone("pending signals") }

func (vanished) Scratch() (addr uint64, size int) { return 0, 0 }

func (vanished) Syscall(_ context.Context, nr uintptr, _ ...uintptr) (uintptr, error) {
	return 0, gone(fmt.Sprintf("system call %d", nr))
}

func (vanished) Batch(context.Context, []plugin.Call) error { return gone("batch") }

func gone(what string) error {
	return fmt.Errorf("pid %d: %s: %w", vanishedPID, what, syscall.ESRCH)
}

var _ plugin.Process = vanished{}
