package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hiatus-project/hiatus/sdk/abi"
)

// maxBody is how much of the body of a response a guest gets.
const maxBody = 1 << 20

// httpFunctions make requests to the hosts that were granted.
func httpFunctions() []hostFunction {
	return []hostFunction{
		{"request", "ii", true, func(c *call, a args) int32 {
			if !c.inEvent("http") {
				return abi.ErrNotAllowed
			}
			var r abi.Request
			if err := c.decode(a.u32(0), a.u32(1), &r); err != nil {
				return c.fault(abi.ErrInvalid, "http: %v", err)
			}
			m := c.in.ext.mod
			u, err := url.Parse(r.URL)
			if err != nil {
				return c.fault(abi.ErrInvalid, "http: %v", err)
			}
			if err := m.grants.mayReach(u); err != nil {
				return c.fault(abi.ErrNotAllowed, "http: %v", err)
			}
			ctx, cancel := context.WithTimeout(c.ctx, m.limits.Deadline)
			defer cancel()
			return c.fetch(func() (any, error) { return m.grants.request(ctx, r) })
		}},
		{"response", "ii", true, (*call).giveAnswer},
	}
}

// mayReach says whether a URL leads to a host that was granted, without a
// port for all its ports.
func (g Grants) mayReach(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q: wants http://host or https://host", u.Redacted())
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if slices.Contains(g.hosts, host) || slices.Contains(g.hosts, net.JoinHostPort(host, port)) {
		return nil
	}
	return fmt.Errorf("%s is not granted", net.JoinHostPort(host, port))
}

// request makes a request of one connection: nothing stays open behind it.
func (g Grants) request(ctx context.Context, r abi.Request) (abi.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return abi.Response{}, err
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("too many redirects")
		}
		return g.mayReach(req.URL)
	}}
	defer transport.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return abi.Response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = fmt.Errorf("the response is larger than %d bytes", maxBody)
	}
	if err != nil {
		return abi.Response{}, err
	}
	out := abi.Response{Status: resp.StatusCode, Header: map[string]string{}, Body: body}
	for k := range resp.Header {
		out.Header[k] = resp.Header.Get(k)
	}
	return out, nil
}
