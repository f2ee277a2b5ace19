// Package c has the header for extensions in C.
package c

import _ "embed"

//go:embed hiatus_plugin.h
var header string

// Header returns hiatus_plugin.h.
func Header() string { return header }
