package coord

import (
	"io"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// FuzzProtocol sends the coordinator what no peer of ours would. It drops the
// connection or answers, and goes on with the others.
func FuzzProtocol(f *testing.F) {
	cfg := testConfig(f)
	cfg.Log = zerolog.Nop()
	s := startServer(f, cfg)
	agent := rawFrame(`{"id":1,"method":"hello","body":{"protocol":1,"role":"agent","agent":{"id":"0"}}}`)
	for _, seed := range []string{
		"", "\x00\x00\x00\x02{}", "\xff\xff\xff\xff", rawFrame(helloCommand), rawFrame(helloCommand) + rawFrame(helloCommand),
		rawFrame(helloCommand) + rawFrame(`{"id":2,"method":"checkpoint","body":{"timeout":-1}}`),
		rawFrame(helloCommand) + rawFrame(`{"id":2,"method":"kill","body":{"signal":9}}`),
		rawFrame(helloCommand) + rawFrame(`{"id":2,"method":"interval","body":{"interval":-9223372036854775808}}`),
		rawFrame(helloCommand) + rawFrame(`{"id":2,"method":"status"}`) + rawFrame(`{"method":"cancel","body":{"id":2}}`),
		agent + rawFrame(`{"id":2,"method":"barrier","body":{"generation":0,"name":"x"}}`) + rawFrame(`{"id":2,"method":"barrier"}`),
		agent + rawFrame(`{"id":2,"method":"publish","body":{"key":"k","value":"AAAA"}}`) + rawFrame(`{"id":3,"method":"lookup","body":{"key":"k"}}`),
		agent + rawFrame(`{"method":"progress","body":{"done":-1,"total":-1}}`) + rawFrame(`{"id":9,"body":{}}`),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		nc, _, err := dialSocket(t.Context(), socketPath(cfg.RuntimeDir, s.Name()))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write(b) // it may have been dropped before the end
		_ = nc.CloseWrite()
		_, _ = io.Copy(io.Discard, nc)
		alive(t, s)
	})
}
