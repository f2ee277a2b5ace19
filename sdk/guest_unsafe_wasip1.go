package sdk

import "unsafe"

// The imports of the ABI, each with a function that passes slices as pointers
// into the guest's memory. The host is done with them when it returns.

func pointer(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

var registered Plugin

// Register makes p the extension. It is called once, in an init function.
func Register(p Plugin) { registered = p }

//go:wasmexport hiatus_init
func exportInit() int32 { return start(registered) }

//go:wasmexport hiatus_event
func exportEvent(kind uint32) int32 { return handle(registered, kind) }

//go:wasmimport hiatus/1 event
func importEvent(a unsafe.Pointer, an uint32) int32

func rawEvent(a []byte) int32 { return importEvent(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1 config
func importConfig(a unsafe.Pointer, an uint32) int32

func rawConfig(a []byte) int32 { return importConfig(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1 state_read
func importStateRead(a unsafe.Pointer, an uint32) int32

func rawStateRead(a []byte) int32 { return importStateRead(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1 state_write
func importStateWrite(a unsafe.Pointer, an uint32) int32

func rawStateWrite(a []byte) int32 { return importStateWrite(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1 log
func importLog(a int32, b unsafe.Pointer, bn uint32)

func rawLog(a int32, b []byte) { importLog(a, pointer(b), uint32(len(b))) }

//go:wasmimport hiatus/1 fail
func importFail(a unsafe.Pointer, an uint32)

func rawFail(a []byte) { importFail(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1 subscribe
func importSubscribe(a uint32) int32

func rawSubscribe(a uint32) int32 { return importSubscribe(a) }

//go:wasmimport hiatus/1 describe
func importDescribe(a unsafe.Pointer, an uint32) int32

func rawDescribe(a []byte) int32 { return importDescribe(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1 features
func importFeatures(a unsafe.Pointer, an uint32) int32

func rawFeatures(a []byte) int32 { return importFeatures(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1 last_error
func importLastError(a unsafe.Pointer, an uint32) int32

func rawLastError(a []byte) int32 { return importLastError(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/coord declare
func importDeclare(a unsafe.Pointer, an uint32) int32

func rawDeclare(a []byte) int32 { return importDeclare(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/coord barrier
func importBarrier(a unsafe.Pointer, an uint32) int32

func rawBarrier(a []byte) int32 { return importBarrier(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/coord publish
func importPublish(a unsafe.Pointer, an uint32, b unsafe.Pointer, bn uint32) int32

func rawPublish(a []byte, b []byte) int32 {
	return importPublish(pointer(a), uint32(len(a)), pointer(b), uint32(len(b)))
}

//go:wasmimport hiatus/1/coord lookup
func importLookup(a unsafe.Pointer, an uint32, b unsafe.Pointer, bn uint32) int32

func rawLookup(a []byte, b []byte) int32 {
	return importLookup(pointer(a), uint32(len(a)), pointer(b), uint32(len(b)))
}

//go:wasmimport hiatus/1/mem.read maps
func importMaps(a int32, b unsafe.Pointer, bn uint32) int32

func rawMaps(a int32, b []byte) int32 { return importMaps(a, pointer(b), uint32(len(b))) }

//go:wasmimport hiatus/1/mem.read read
func importRead(a int32, b uint64, c unsafe.Pointer, cn uint32) int32

func rawRead(a int32, b uint64, c []byte) int32 { return importRead(a, b, pointer(c), uint32(len(c))) }

//go:wasmimport hiatus/1/mem.write write
func importWrite(a int32, b uint64, c unsafe.Pointer, cn uint32) int32

func rawWrite(a int32, b uint64, c []byte) int32 {
	return importWrite(a, b, pointer(c), uint32(len(c)))
}

//go:wasmimport hiatus/1/exec run
func importRun(a unsafe.Pointer, an uint32) int32

func rawRun(a []byte) int32 { return importRun(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/exec result
func importRunResult(a unsafe.Pointer, an uint32) int32

func rawRunResult(a []byte) int32 { return importRunResult(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/http request
func importRequest(a unsafe.Pointer, an uint32) int32

func rawRequest(a []byte) int32 { return importRequest(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/http response
func importResponse(a unsafe.Pointer, an uint32) int32

func rawResponse(a []byte) int32 { return importResponse(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/env process
func importEnvProcess(a int32, b unsafe.Pointer, bn uint32) int32

func rawEnvProcess(a int32, b []byte) int32 { return importEnvProcess(a, pointer(b), uint32(len(b))) }

//go:wasmimport hiatus/1/env own
func importEnvOwn(a unsafe.Pointer, an uint32) int32

func rawEnvOwn(a []byte) int32 { return importEnvOwn(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/env change
func importEnvChange(a int32, b unsafe.Pointer, bn uint32) int32

func rawEnvChange(a int32, b []byte) int32 { return importEnvChange(a, pointer(b), uint32(len(b))) }

//go:wasmimport hiatus/1/files list
func importFiles(a unsafe.Pointer, an uint32) int32

func rawFiles(a []byte) int32 { return importFiles(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/files mark
func importMark(a unsafe.Pointer, an uint32) int32

func rawMark(a []byte) int32 { return importMark(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/path map
func importMapPath(a unsafe.Pointer, an uint32, b unsafe.Pointer, bn uint32) int32

func rawMapPath(a []byte, b []byte) int32 {
	return importMapPath(pointer(a), uint32(len(a)), pointer(b), uint32(len(b)))
}

//go:wasmimport hiatus/1/fd own
func importOwn(a unsafe.Pointer, an uint32) int32

func rawOwn(a []byte) int32 { return importOwn(pointer(a), uint32(len(a))) }

//go:wasmimport hiatus/1/fd saved
func importSaved(a int32, b int32, c unsafe.Pointer, cn uint32) int32

func rawSaved(a int32, b int32, c []byte) int32 { return importSaved(a, b, pointer(c), uint32(len(c))) }

//go:wasmimport hiatus/1/fd reopen
func importReopen(a int32, b int32, c unsafe.Pointer, cn uint32) int32

func rawReopen(a int32, b int32, c []byte) int32 {
	return importReopen(a, b, pointer(c), uint32(len(c)))
}

//go:wasmimport hiatus/1/hold keep
func importKeep(a int32) int32

func rawKeep(a int32) int32 { return importKeep(a) }
