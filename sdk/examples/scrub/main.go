// Command scrub keeps a secret out of the image: it overwrites it in the
// memory of all processes before the image is written, and puts it back when
// the program runs on.
//
// Configuration: variable, the name of an environment variable of the launching
// and the restarting command that holds the secret. A restart puts the secret
// of its own environment back, which must have the same length.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hiatus-project/hiatus/sdk"
)

// place is where the secret was.
type place struct {
	PID  int    `json:"pid"`
	Addr uint64 `json:"addr,string"`
}

type state struct {
	Length int     `json:"length"`
	Places []place `json:"places"`
}

type scrub struct{}

func (scrub) Definition() sdk.Definition {
	return sdk.Definition{Summary: "keeps a secret out of the image", Kinds: []sdk.Kind{sdk.PreCheckpoint, sdk.Resume, sdk.Running}}
}

func (scrub) Handle(ev sdk.Event) error {
	secret, err := secret()
	if err != nil {
		return err
	}
	if ev.Kind == sdk.PreCheckpoint {
		return erase(ev, secret)
	}
	data, err := sdk.State()
	if err != nil || len(data) == 0 {
		return err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	if s.Length != len(secret) {
		return fmt.Errorf("the secret has %d bytes, had %d", len(secret), s.Length)
	}
	for _, p := range s.Places {
		if err := sdk.WriteMemory(p.PID, p.Addr, secret); err != nil {
			return err
		}
	}
	return nil
}

func secret() ([]byte, error) {
	var c struct {
		Variable string `json:"variable"`
	}
	if err := sdk.Config(&c); err != nil {
		return nil, err
	}
	environ, err := sdk.OwnEnviron()
	if err != nil {
		return nil, err
	}
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, c.Variable+"="); ok && len(value) >= 8 {
			return []byte(value), nil
		}
	}
	return nil, errors.New("the variable " + c.Variable + " is not set, or shorter than 8 bytes")
}

func erase(ev sdk.Event, secret []byte) error {
	details, err := ev.Details()
	if err != nil {
		return err
	}
	s := state{Length: len(secret)}
	for _, p := range details.Processes {
		maps, err := sdk.Maps(p.PID)
		if err != nil {
			return err
		}
		for _, m := range maps {
			// Shared memory is another's as well; what is read only cannot
			// have been received.
			if !strings.HasPrefix(m.Perms, "rw") || strings.HasSuffix(m.Perms, "s") {
				continue
			}
			found, err := search(p.PID, m.Start, m.End, secret)
			if err != nil {
				return err
			}
			s.Places = append(s.Places, found...)
		}
	}
	sdk.Infof("the secret stands at %d places", len(s.Places))
	zeros := make([]byte, len(secret))
	for _, p := range s.Places {
		if err := sdk.WriteMemory(p.PID, p.Addr, zeros); err != nil {
			return err
		}
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return sdk.SetState(data)
}

// search reads a mapping in pieces that overlap.
func search(pid int, start, end uint64, secret []byte) ([]place, error) {
	const piece = 1 << 20
	var found []place
	buf := make([]byte, piece+len(secret)-1)
	for at := start; at < end; at += piece {
		b := buf[:min(end-at, uint64(len(buf)))]
		if err := sdk.ReadMemory(pid, at, b); err != nil {
			return found, err
		}
		for from := 0; ; {
			i := bytes.Index(b[from:], secret)
			if i < 0 || from+i >= piece {
				break
			}
			found = append(found, place{pid, at + uint64(from+i)})
			from += i + len(secret)
		}
	}
	return found, nil
}

func init() { sdk.Register(scrub{}) }

func main() {}
