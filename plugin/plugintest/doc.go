// Package plugintest is what a plugin's own tests need: a fake host, open
// files and a process to work on without ptrace, and the contract tests that
// every plugin must pass.
//
//	func TestContract(t *testing.T) {
//		plugintest.Run(t, Definition(), plugintest.Suite{
//			Fill: func(t *testing.T, p plugin.Plugin, h *plugintest.Host) { ... },
//		})
//	}
//
//	func TestCounter(t *testing.T) {
//		plugintest.RoundTrip(t, Definition(),
//			func(t *testing.T) []int { ... return []int{fd} },
//			func(t *testing.T, fds []int) { ... })
//	}
//
// [OpenFile] describes descriptors of the test process itself as the engine
// would, and [Self] is the test process as a [plugin.Process]: the system
// calls that a plugin injects are really made, on a thread of their own.
//
// Several checks compare the descriptors of the test process before and
// after a call. Tests that use them must not run in parallel with others
// that open files.
package plugintest
