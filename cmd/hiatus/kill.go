package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/core/coord"
)

// Real-time signals as the C library counts them: it keeps 32 and 33 for
// itself (signal(7)).
const (
	sigRTMin = 34
	sigRTMax = 64
)

// killPatience is how long processes that were killed may take to end.
const killPatience = 10 * time.Second

func (a *app) killCommand() *cobra.Command {
	name := "KILL"
	cmd := &cobra.Command{
		Use:   "kill [NAME]",
		Short: "Send a signal to all processes of a computation",
		Long: `Send a signal, by default SIGKILL, to all processes of a computation. Its images
stay. NAME may be left out where one computation runs. With KILL the command waits
until the computation has ended, so that its name is free, 10 s at most. A restart
whose program does not run yet is given up by KILL, TERM, INT, QUIT and HUP; others
fail then.

` + helpExit,
		Example:           "  hiatus kill sim\n  hiatus kill sim --signal TERM",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeName,
	}
	cmd.Flags().StringVar(&name, "signal", name, "send signal `S`: a name with or without SIG, or a number")
	completeChoice(cmd, "signal", "KILL", "TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "STOP", "CONT")
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		sig, err := parseSignal(name)
		if err != nil {
			return usagef("--signal: %w", err)
		}
		c, err := a.connect(ctx, optional(args, ""))
		if err != nil {
			return err
		}
		defer c.Close()
		err = c.Kill(ctx, sig)
		if errors.Is(err, coord.ErrConnectionLost) || errors.Is(err, coord.ErrClosed) {
			return nil // it ended before it could answer
		}
		if err == nil && sig == syscall.SIGKILL {
			ctx, cancel := context.WithTimeout(ctx, killPatience)
			defer cancel()
			_ = c.Ended(ctx) // later, then
		}
		return err
	})
	return cmd
}

// parseSignal takes a number, TERM, SIGTERM, RTMIN+1 or RTMAX-1, in any case.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("no signal has the number %d", n)
		}
		return syscall.Signal(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	for base, n := range map[string]int{"SIGRTMIN": sigRTMin, "SIGRTMAX": sigRTMax} {
		offset, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		off, err := strconv.Atoi(offset)
		if offset != "" && (err != nil || offset[0] != '+' && offset[0] != '-') {
			continue
		}
		if n+off >= sigRTMin && n+off <= sigRTMax {
			return syscall.Signal(n + off), nil
		}
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
