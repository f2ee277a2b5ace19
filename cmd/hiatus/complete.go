package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/image"
)

// completionPatience is how long the shell may wait for a list of names.
const completionPatience = 2 * time.Second

// runningNames returns the names of the running computations, and none where
// they cannot be had.
func (a *app) runningNames(ctx context.Context) []string {
	all, err := a.engine.Running(ctx)
	if err != nil {
		return nil
	}
	return names(all)
}

// completeName completes the first argument with running computations.
func (a *app) completeName(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	return a.runningNames(ctx), cobra.ShellCompDirectiveNoFileComp
}

// completeRunFlags completes the values of the flags that launch and restart
// share.
func (a *app) completeRunFlags(cmd *cobra.Command) {
	plugins := pluginNames(a.engine.Plugins)
	completeList(cmd, "with-plugin", plugins...)
	completeList(cmd, "disable-plugin", plugins...)
	completeList(cmd, "debug-logs", append([]string{coreLog}, plugins...)...)
	completeChoice(cmd, "compress", image.Compressions()...)
	completeChoice(cmd, "log-level", logLevels()...)
	completeChoice(cmd, "tcp-outside", "refuse", "close")
	for _, flag := range []string{"full-every", "interval", "keep", "name"} { // free words
		complete(cmd, flag, cobra.NoFileCompletions)
	}
}

// completeChoice completes a flag's value with one of values.
func completeChoice(cmd *cobra.Command, flag string, values ...string) {
	complete(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// completeList completes the last item of a flag's comma-separated list.
func completeList(cmd *cobra.Command, flag string, values ...string) {
	complete(cmd, flag, func(_ *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		before := word[:strings.LastIndexByte(word, ',')+1]
		list := make([]cobra.Completion, 0, len(values))
		for _, v := range values {
			list = append(list, before+v)
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	})
}

// completeDir completes a flag's value with directories.
func completeDir(cmd *cobra.Command, flag string) {
	complete(cmd, flag, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
}

// complete registers a completion. cobra's only error is that the flag does
// not exist or has one already, and TestFlagsComplete would show it.
func complete(cmd *cobra.Command, flag string, fn cobra.CompletionFunc) {
	_ = cmd.RegisterFlagCompletionFunc(flag, fn)
}
