// Package rust has the crate for extensions in Rust.
package rust

import _ "embed"

//go:embed src/lib.rs
var library string

// Library returns the source of the crate.
func Library() string { return library }
