package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/coord"
	"github.com/hiatus-project/hiatus/plugin"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1  // a failure or a refusal
	exitUsage   = 2  // wrong usage or configuration
	exitOwn     = 99 // of launch and restart, whose other codes are the program's
)

// What the help of each command says of its exit codes.
const (
	helpExit = `Exit code: 0 done; 1 failed or refused; 2 wrong usage or configuration.`
	helpRun  = `Exit code: CMD's own; 128+n where signal n ended it; 99 where hiatus itself
failed. With --detach: 0 once it runs, else 99.`
)

// exitCode is the code of a program that ran under launch or restart, or of
// a command that has said all that is to say.
type exitCode int

func (c exitCode) Error() string { return "exit code " + strconv.Itoa(int(c)) }

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// configError is an error in the environment or in a configuration file.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// report writes err to stderr, on one line.
func (a *app) report(err error) {
	var parts []string
	for line := range strings.Lines(suggestionInline(err.Error())) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, printable(line))
		}
	}
	fmt.Fprintf(a.stderr, "hiatus: %s\n", strings.Join(parts, "; "))
}

// suggestionInline puts cobra's suggestions, which are lines of their own, behind
// the error.
func suggestionInline(text string) string {
	what, names, found := strings.Cut(text, "\n\nDid you mean this?\n")
	if !found {
		return text
	}
	return what + "; did you mean " + strings.Join(strings.Fields(names), " or ") + "?"
}

func (a *app) hint(cmd *cobra.Command) {
	fmt.Fprintf(a.stderr, "Try `%s --help`.\n", cmd.CommandPath())
}

// refusals returns the refusals that stand in the tree of err.
func refusals(err error) []coord.Refusal {
	switch e := err.(type) {
	case *plugin.RefusalError:
		return []coord.Refusal{*e}
	case interface{ Unwrap() error }:
		return refusals(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []coord.Refusal
		for _, sub := range e.Unwrap() {
			all = append(all, refusals(sub)...)
		}
		return all
	}
	return nil
}
