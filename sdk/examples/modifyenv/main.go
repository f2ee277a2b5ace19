// Command modifyenv changes the environment of the restored processes, as
// DMTCP's modify-env does.
//
// Configuration: env, the text of a file of lines. NAME=value sets a variable,
// NAME alone removes it, $X and ${X} in a value stand for the variable X of the
// restarting command. Within double quotes blanks and # are part of the value,
// and a backslash is as in C. # begins a comment.
//
//	hiatus restart DIR --with-plugin modifyenv.wasm,grant=env,set=env=@hiatus_env.txt
package main

import (
	"fmt"
	"strings"

	"github.com/hiatus-project/hiatus/sdk"
)

// maxText is DMTCP's limit, too.
const maxText = 12 << 10

type modifyenv struct{}

func (modifyenv) Definition() sdk.Definition {
	return sdk.Definition{Summary: "changes environment variables on restart", Kinds: []sdk.Kind{sdk.Restart}}
}

func (modifyenv) Handle(sdk.Event) error {
	var config struct {
		Env string `json:"env"`
	}
	if err := sdk.Config(&config); err != nil {
		return err
	}
	own, err := sdk.OwnEnviron()
	if err != nil {
		return err
	}
	changes, err := parse(config.Env, lookup(own))
	if err != nil || len(changes) == 0 {
		return err
	}
	return sdk.ChangeEnviron(0, changes)
}

func lookup(environ []string) func(string) string {
	return func(name string) string {
		for _, entry := range environ {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// parse reads the lines.
func parse(text string, getenv func(string) string) ([]sdk.EnvChange, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("env: %d bytes, at most %d are read", len(text), maxText)
	}
	var changes []sdk.EnvChange
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, set := strings.Cut(line, "=")
		if !set {
			name, _, _ = strings.Cut(name, "#")
		}
		name = strings.TrimSpace(name)
		if name == "" || strings.ContainsAny(name, " \t\"\\$") {
			return nil, fmt.Errorf("env: line %d: %q is no name", number, name)
		}
		change := sdk.EnvChange{Name: name}
		if set {
			value, err := parseValue(rest, getenv)
			if err != nil {
				return nil, fmt.Errorf("env: line %d: %w", number, err)
			}
			change.Value = &value
		}
		changes = append(changes, change)
	}
	return changes, nil
}

// parseValue reads what stands behind the =.
func parseValue(s string, getenv func(string) string) (string, error) {
	var out strings.Builder
	s = strings.TrimSpace(s)
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '#' && !quoted:
			return strings.TrimRight(out.String(), " \t"), nil
		case c == '\\':
			if i++; i == len(s) {
				return "", fmt.Errorf("a backslash ends the line")
			}
			out.WriteByte(escape(s[i]))
		case c == '$':
			name, n := variable(s[i+1:])
			if n == 0 {
				out.WriteByte(c)
				continue
			}
			out.WriteString(getenv(name))
			i += n
		default:
			out.WriteByte(c)
		}
	}
	if quoted {
		return "", fmt.Errorf("a quote is not closed")
	}
	return out.String(), nil
}

func escape(c byte) byte {
	if i := strings.IndexByte("ntrabfv", c); i >= 0 {
		return "\n\t\r\a\b\f\v"[i]
	}
	return c
}

// variable reads X or {X}; n is what it takes of s.
func variable(s string) (name string, n int) {
	if strings.HasPrefix(s, "{") {
		if end := strings.IndexByte(s, '}'); end > 1 {
			return s[1:end], end + 1
		}
		return "", 0
	}
	for n < len(s) && (s[n] == '_' || s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z' || n > 0 && s[n] >= '0' && s[n] <= '9') {
		n++
	}
	return s[:n], n
}

func init() { sdk.Register(modifyenv{}) }

func main() {}
