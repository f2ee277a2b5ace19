package image

import (
	"errors"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// probeSize is how much is written before the speed of a directory can be
// told: less says more of latency.
const probeSize = 16 << 20

// The speeds of a store, in bytes a second, below which s2 and zstd are faster
// than to write what they save.
const (
	speedS2   = 1 << 30
	speedZstd = 300 << 20
)

// forSpeed returns the compression for a store of a speed.
func forSpeed(speed float64) string {
	switch {
	case speed < speedZstd:
		return Zstd.String()
	case speed < speedS2:
		return S2.String()
	}
	return CompressNone
}

// meter measures how fast a store takes what the image has to write anyway:
// the time in write calls, and that until what they wrote is on the device.
type meter struct {
	stripes []*stripe
	told    func(speed float64) // once probeSize bytes are on the device
	written atomic.Int64        // bytes
	writing atomic.Int64        // nanoseconds in write calls, of all writers
	writers atomic.Int64        // that have written

	once  sync.Once
	probe sync.WaitGroup
	speed float64 // of the probe, bytes a second; 0: there was none
	err   error   // of the probe
}

// wrote counts a write call.
func (m *meter) wrote(n int, took time.Duration) {
	m.writing.Add(int64(took))
	if m.written.Add(int64(n)) >= probeSize && m.told != nil {
		m.once.Do(func() { m.probe.Go(m.sync) })
	}
}

// sync waits until what was written so far is on the device, beside the
// writers, who go on.
func (m *meter) sync() {
	bytes, writing := m.written.Load(), m.wall()
	begun := time.Now()
	for _, s := range m.stripes {
		const how = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		err := unix.SyncFileRange(int(s.file.Fd()), 0, s.end.Load(), how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESPIPE) {
			return // not measured
		}
		if err != nil { // which fsync(2) does not report any more
			m.err = &os.PathError{Op: "sync_file_range", Path: s.file.Name(), Err: err}
			return
		}
	}
	m.speed = perSecond(bytes, writing+time.Since(begun))
	m.told(m.speed)
}

// wall is the time that writers, side by side, were in write calls.
func (m *meter) wall() time.Duration {
	return time.Duration(m.writing.Load() / max(1, m.writers.Load()))
}

// end returns the speed of the store, 0 where too little was written to tell.
// synced is how long fsync took. Where the kernel wrote to the device while
// others blocks were compressed, that alone would show too high a speed.
func (m *meter) end(synced time.Duration) (speed float64, err error) {
	m.probe.Wait()
	bytes := m.written.Load()
	if m.err != nil || bytes < probeSize {
		return 0, m.err
	}
	speed = perSecond(bytes, m.wall()+synced)
	if m.speed > 0 {
		speed = min(speed, m.speed)
	}
	return speed, nil
}

func perSecond(bytes int64, took time.Duration) float64 {
	if took <= 0 {
		return math.MaxFloat64
	}
	return float64(bytes) / took.Seconds()
}
