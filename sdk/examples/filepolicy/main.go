// Command filepolicy decides by patterns what becomes of open files, as
// DMTCP's ckptfile does.
//
// Configuration: rules, a list of {"pattern", "action", "path"}; the first whose
// pattern (as in a shell; * also stands for /) fits the path of an open file
// decides. Actions are save, skip, reopen, replace and leave; in path, for
// reopen and replace, * stands for the file's own name.
package main

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/hiatus-project/hiatus/sdk"
)

type filepolicy struct{}

func (filepolicy) Definition() sdk.Definition {
	return sdk.Definition{Summary: "saves, skips or reopens open files by patterns", Kinds: []sdk.Kind{sdk.PreCheckpoint}}
}

type rule struct {
	Pattern string `json:"pattern"`
	Action  string `json:"action"`
	Path    string `json:"path"`
}

func (filepolicy) Handle(sdk.Event) error {
	var c struct {
		Rules []rule `json:"rules"`
	}
	if err := sdk.Config(&c); err != nil {
		return err
	}
	files, err := sdk.Files()
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Type != "file" {
			continue
		}
		for _, r := range c.Rules {
			if !fits(r.Pattern, f.Link) {
				continue
			}
			if err := apply(r, f); err != nil {
				return fmt.Errorf("%s: %w", f.Link, err)
			}
			break
		}
	}
	return nil
}

func apply(r rule, f sdk.File) error {
	if r.Action == "leave" {
		return nil
	}
	sdk.Infof("%s: %s %s", f.Link, r.Action, r.Path)
	return sdk.MarkFile(sdk.Mark{PID: f.PID, FD: f.FD, Action: r.Action, Path: strings.ReplaceAll(r.Path, "*", path.Base(f.Link))})
}

// fits is fnmatch(3) without FNM_PATHNAME.
func fits(pattern, name string) bool {
	var expr strings.Builder
	for _, c := range pattern {
		switch c {
		case '*':
			expr.WriteString(".*")
		case '?':
			expr.WriteString(".")
		default:
			expr.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	ok, _ := regexp.MatchString("(?s)^"+expr.String()+"$", name) // always a valid expression
	return ok
}

func init() { sdk.Register(filepolicy{}) }

func main() {}
