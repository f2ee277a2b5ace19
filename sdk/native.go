//go:build !wasip1

package sdk

import "sync"

// Backend stands in for the host where the code does not run as WASM; package
// sdktest has one. Each method is a function of the ABI.
type Backend interface {
	Event(a []byte) int32
	Config(a []byte) int32
	StateRead(a []byte) int32
	StateWrite(a []byte) int32
	Log(a int32, b []byte)
	Fail(a []byte)
	Subscribe(a uint32) int32
	Describe(a []byte) int32
	Features(a []byte) int32
	LastError(a []byte) int32
	Declare(a []byte) int32
	Barrier(a []byte) int32
	Publish(a []byte, b []byte) int32
	Lookup(a []byte, b []byte) int32
	Maps(a int32, b []byte) int32
	Read(a int32, b uint64, c []byte) int32
	Write(a int32, b uint64, c []byte) int32
	Run(a []byte) int32
	RunResult(a []byte) int32
	Request(a []byte) int32
	Response(a []byte) int32
	EnvProcess(a int32, b []byte) int32
	EnvOwn(a []byte) int32
	EnvChange(a int32, b []byte) int32
	Files(a []byte) int32
	Mark(a []byte) int32
	MapPath(a []byte, b []byte) int32
	Own(a []byte) int32
	Saved(a int32, b int32, c []byte) int32
	Reopen(a int32, b int32, c []byte) int32
	Keep(a int32) int32
}

// native is the state of a test process.
var native struct {
	mu         sync.Mutex
	backend    Backend
	registered Plugin
}

// Register makes p the extension. It is called once, in an init function.
func Register(p Plugin) {
	native.mu.Lock()
	defer native.mu.Unlock()
	native.registered = p
}

// Registered returns what was registered, for tests.
func Registered() Plugin {
	native.mu.Lock()
	defer native.mu.Unlock()
	return native.registered
}

// SetBackend sets who answers, for tests, and returns who did before.
func SetBackend(b Backend) Backend {
	native.mu.Lock()
	defer native.mu.Unlock()
	old := native.backend
	native.backend = b
	return old
}

// CallInit is what the export hiatus_init does.
func CallInit(p Plugin) int32 { return start(p) }

// CallEvent is what the export hiatus_event does.
func CallEvent(p Plugin, kind Kind) int32 { return handle(p, uint32(kind)) }

func backend() Backend {
	native.mu.Lock()
	defer native.mu.Unlock()
	if native.backend == nil {
		panic("sdk: outside of an extension a test sets the backend: see package sdktest")
	}
	return native.backend
}

func rawEvent(a []byte) int32                    { return backend().Event(a) }
func rawConfig(a []byte) int32                   { return backend().Config(a) }
func rawStateRead(a []byte) int32                { return backend().StateRead(a) }
func rawStateWrite(a []byte) int32               { return backend().StateWrite(a) }
func rawLog(a int32, b []byte)                   { backend().Log(a, b) }
func rawFail(a []byte)                           { backend().Fail(a) }
func rawSubscribe(a uint32) int32                { return backend().Subscribe(a) }
func rawDescribe(a []byte) int32                 { return backend().Describe(a) }
func rawFeatures(a []byte) int32                 { return backend().Features(a) }
func rawLastError(a []byte) int32                { return backend().LastError(a) }
func rawDeclare(a []byte) int32                  { return backend().Declare(a) }
func rawBarrier(a []byte) int32                  { return backend().Barrier(a) }
func rawPublish(a []byte, b []byte) int32        { return backend().Publish(a, b) }
func rawLookup(a []byte, b []byte) int32         { return backend().Lookup(a, b) }
func rawMaps(a int32, b []byte) int32            { return backend().Maps(a, b) }
func rawRead(a int32, b uint64, c []byte) int32  { return backend().Read(a, b, c) }
func rawWrite(a int32, b uint64, c []byte) int32 { return backend().Write(a, b, c) }
func rawRun(a []byte) int32                      { return backend().Run(a) }
func rawRunResult(a []byte) int32                { return backend().RunResult(a) }
func rawRequest(a []byte) int32                  { return backend().Request(a) }
func rawResponse(a []byte) int32                 { return backend().Response(a) }
func rawEnvProcess(a int32, b []byte) int32      { return backend().EnvProcess(a, b) }
func rawEnvOwn(a []byte) int32                   { return backend().EnvOwn(a) }
func rawEnvChange(a int32, b []byte) int32       { return backend().EnvChange(a, b) }
func rawFiles(a []byte) int32                    { return backend().Files(a) }
func rawMark(a []byte) int32                     { return backend().Mark(a) }
func rawMapPath(a []byte, b []byte) int32        { return backend().MapPath(a, b) }
func rawOwn(a []byte) int32                      { return backend().Own(a) }
func rawSaved(a int32, b int32, c []byte) int32  { return backend().Saved(a, b, c) }
func rawReopen(a int32, b int32, c []byte) int32 { return backend().Reopen(a, b, c) }
func rawKeep(a int32) int32                      { return backend().Keep(a) }
