// Package wasm runs extensions: plugins in WebAssembly, by users.
//
// [Load] reads a module, holds its imports against what the user grants, and
// returns a plugin.Definition like that of a built-in plugin; sdk/abi/ABI.md
// describes what host and guest say to each other.
//
// # Containment
//
// A guest has no file system, no network and no process but by the
// capabilities that it was granted, each an import module of its own. Every
// call has a deadline, memory has a limit, and what a guest writes (state,
// log) is bounded. A guest that traps, loops, passes a pointer outside its
// memory or returns a failure gets one error that names the extension. Its
// instance is then closed and never used again; what it had written into the
// memory of the program is put back.
//
// # Life of an instance
//
// Module and compiled code live as long as the agent. Each launch, each
// checkpoint and each restart has an instance of its own, made at the first
// event that the guest has subscribed to, or ready by then, and closed behind the last: so an
// extension cannot keep in its memory what belongs in the image. State that it
// writes counts when the generation is committed, and is forgotten when the
// checkpoint was given up.
package wasm
