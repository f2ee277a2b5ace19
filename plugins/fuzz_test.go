package plugins

import (
	"bytes"
	"testing"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/plugin/plugintest"
)

// FuzzLoad gives each plugin a state that somebody else may have written. What
// it accepts it saves as something that it accepts again.
func FuzzLoad(f *testing.F) {
	defs := Standard()
	for i, seed := range []string{
		`{}`, `null`, `[]`, `{"files":{"1":{}}}`, `{"files":{"-1":null},"epolls":[{}],"objects":[{"id":-1}]}`,
		`{"epolls":{"1":{"targets":[{"fd":-1,"events":4294967295,"data":18446744073709551615}]}}}`,
		`{"sockets":[{"family":1,"type":1,"peer":99}],"segments":[{"id":2147483647,"size":18446744073709551615}]}`,
		`{"semaphores":[{"id":1,"values":[65535,-1]}],"queues":[{"name":"../../x","messages":[{}]}]}`,
		`{"timers":[{"pid":1,"id":-1,"clock":99,"value":-1}],"timerfds":[{"clock":1}]}`,
	} {
		for j := range defs {
			f.Add(uint8(i+j), []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		def := defs[int(which)%len(defs)]
		load := func(data []byte) (plugin.Stater, error) {
			p, err := def.New(plugintest.NewHost(t))
			if err != nil {
				t.Skip(err)
			}
			s, ok := p.(plugin.Stater)
			if !ok {
				t.Skip("it has no state")
			}
			return s, s.Load(t.Context(), def.State, bytes.NewReader(data))
		}
		s, err := load(data)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := s.Save(t.Context(), &out); err != nil {
			t.Fatalf("plugin %s: Save of what Load accepted: %v", def.Name, err)
		}
		if _, err := load(out.Bytes()); err != nil {
			t.Fatalf("plugin %s: Load of what Save wrote: %v\n%s", def.Name, err, out.Bytes())
		}
	})
}
