package plugintest

import "unsafe"

// address returns where b begins in the memory of the test process.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
