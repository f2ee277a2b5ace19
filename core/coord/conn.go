package coord

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	handshakeTimeout = 10 * time.Second // for hello, both ends
	frameTimeout     = 30 * time.Second // for the rest of a frame that has begun
	writeTimeout     = 10 * time.Second // for a frame to be taken by the kernel
	maxServing       = 128              // requests of a peer at once
)

// methodCancel is handled by conn itself.
const methodCancel = "cancel"

type cancelBody struct {
	ID    uint64     `json:"id"`
	Error *wireError `json:"error,omitempty"`
}

// task is the part of a request that may wait. ctx is done when the sender
// has cancelled the request or the connection is lost.
type task func(ctx context.Context) (reply any, err error)

// dispatcher decides on a message. It is called in the order of arrival, so
// it must not wait: what may wait goes into the task, which runs on a
// goroutine of its own (a notification's runs before the next message is
// read, and its results are dropped). An error becomes the reply; one that
// matches errProtocol drops the peer.
type dispatcher func(method string, body json.RawMessage) (task, error)

// conn is one connection with requests in both directions.
type conn struct {
	nc       net.Conn
	log      zerolog.Logger
	dispatch dispatcher

	ctx    context.Context // done when the connection is lost; the cause says why
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup // added to by run's goroutine only

	writing sync.Mutex // held while a frame is written

	mu       sync.Mutex
	idle     time.Duration // limit between frames; 0: none
	stopping bool
	lastID   uint64                             // of our requests
	calls    map[uint64]chan envelope           // our requests without a reply
	serving  map[uint64]context.CancelCauseFunc // the peer's
}

func newConn(nc net.Conn, log zerolog.Logger, dispatch dispatcher) *conn {
	c := &conn{
		nc: nc, log: log, dispatch: dispatch,
		calls:   make(map[uint64]chan envelope),
		serving: make(map[uint64]context.CancelCauseFunc),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// abort ends the connection at once.
func (c *conn) abort(cause error) {
	c.cancel(fmt.Errorf("%w: %w", ErrConnectionLost, cause))
	c.nc.Close()
}

// stop makes run read no further: it waits for the tasks, whose replies are
// still sent, and ends.
func (c *conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// setIdle sets the limit between frames from the next one on.
func (c *conn) setIdle(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = d
}

// setReadDeadline gives the reader d from now, 0 for ever, unless stopped.
func (c *conn) setReadDeadline(d time.Duration) {
	if c.stopping {
		return
	}
	var at time.Time
	if d > 0 {
		at = time.Now().Add(d)
	}
	c.nc.SetReadDeadline(at)
}

// run serves the connection until it ends, and returns why. All tasks have
// ended by then.
func (c *conn) run() error {
	err := c.readLoop()
	c.mu.Lock()
	stopping := c.stopping
	c.mu.Unlock()
	if stopping {
		c.tasks.Wait()
		err = ErrClosed
	}
	c.abort(err)
	c.tasks.Wait()
	return err
}

func (c *conn) readLoop() error {
	r := bufio.NewReader(c.nc)
	for {
		e, err := c.read(r)
		if err == nil {
			err = c.accept(e)
		}
		if err != nil {
			return err
		}
	}
}

// read waits for a frame as long as may be, then for its rest.
func (c *conn) read(r *bufio.Reader) (envelope, error) {
	c.mu.Lock()
	c.setReadDeadline(c.idle)
	c.mu.Unlock()
	if _, err := r.Peek(1); err != nil {
		return envelope{}, err
	}
	c.mu.Lock()
	c.setReadDeadline(frameTimeout)
	c.mu.Unlock()
	return readFrame(r)
}

// accept handles one message; an error drops the peer.
func (c *conn) accept(e envelope) error {
	switch {
	case e.Method == "":
		return c.acceptReply(e)
	case e.Method == methodCancel && e.ID == 0:
		return c.acceptCancel(e.Body)
	case e.ID == 0:
		t, err := c.dispatch(e.Method, e.Body)
		if err == nil {
			_, err = t(c.ctx)
		}
		if errors.Is(err, errProtocol) {
			return err
		}
		return nil
	default:
		return c.acceptRequest(e)
	}
}

// acceptReply hands a reply to the call that waits for it. The call may have
// been cancelled; but an id that was never used is nonsense.
func (c *conn) acceptReply(e envelope) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.ID > c.lastID {
		return fmt.Errorf("%w: reply to request %d, which was never sent", errProtocol, e.ID)
	}
	if reply, ok := c.calls[e.ID]; ok {
		delete(c.calls, e.ID)
		reply <- e
	}
	return nil
}

func (c *conn) acceptCancel(body json.RawMessage) error {
	var in cancelBody
	if err := json.Unmarshal(body, &in); err != nil {
		return fmt.Errorf("%w: cancel: %w", errProtocol, err)
	}
	cause := context.Canceled
	if in.Error != nil {
		cause = in.Error.decode()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel, ok := c.serving[in.ID]; ok {
		cancel(cause)
	}
	return nil
}

func (c *conn) acceptRequest(e envelope) error {
	c.mu.Lock()
	_, used := c.serving[e.ID]
	full := len(c.serving) >= maxServing
	ctx, cancel := context.WithCancelCause(c.ctx)
	if !used && !full {
		c.serving[e.ID] = cancel
	}
	c.mu.Unlock()
	if used || full {
		cancel(nil)
		return fmt.Errorf("%w: request %d (%q) while %d are served", errProtocol, e.ID, e.Method, maxServing)
	}
	t, err := c.dispatch(e.Method, e.Body)
	if errors.Is(err, errProtocol) {
		cancel(nil)
		return err
	}
	c.tasks.Go(func() {
		var reply any
		if err == nil {
			reply, err = t(ctx)
		}
		c.reply(e.ID, e.Method, reply, err)
		cancel(nil)
	})
	return nil
}

// reply answers request id. Where the answer cannot be encoded the peer
// hears that instead.
func (c *conn) reply(id uint64, method string, reply any, err error) {
	out := envelope{ID: id}
	if err == nil && reply != nil {
		out.Body, err = json.Marshal(reply)
	}
	if err != nil {
		out = envelope{ID: id, Error: encodeError(err)}
	}
	// From here on the peer may use the id again.
	c.mu.Lock()
	delete(c.serving, id)
	c.mu.Unlock()
	frame, err := encodeFrame(out)
	if err != nil {
		frame, err = encodeFrame(envelope{ID: id, Error: encodeError(err)})
	}
	if err == nil {
		err = c.send(frame)
	}
	if err != nil {
		c.log.Debug().Err(err).Str("method", method).Msg("reply not sent")
	}
}

// send writes one frame. A peer that does not take it in time is dropped.
func (c *conn) send(frame []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.nc.Write(frame)
	if err != nil {
		c.abort(err) // the frame may be half out
		return context.Cause(c.ctx)
	}
	return nil
}

// notify sends a message without a reply.
func (c *conn) notify(method string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %q message: %w", method, err)
	}
	frame, err := encodeFrame(envelope{Method: method, Body: raw})
	if err != nil {
		return err
	}
	return c.send(frame)
}

// call sends a request and waits for its reply, which is decoded into out
// unless that is nil. When ctx is done the peer is told, and call returns the
// context's cause without waiting for the peer.
func (c *conn) call(ctx context.Context, method string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %q message: %w", method, err)
	}
	reply := make(chan envelope, 1)
	c.mu.Lock()
	c.lastID++
	id := c.lastID
	c.calls[id] = reply
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
	}()
	frame, err := encodeFrame(envelope{ID: id, Method: method, Body: body})
	if err != nil {
		return err
	}
	if err := c.send(frame); err != nil {
		return err
	}
	select {
	case e := <-reply:
		return decodeReply(e, method, out)
	case <-ctx.Done():
		cause := context.Cause(ctx)
		go c.notify(methodCancel, cancelBody{ID: id, Error: encodeError(cause)})
		return cause
	case <-c.ctx.Done():
	}
	// The reply may have been the last that came.
	select {
	case e := <-reply:
		return decodeReply(e, method, out)
	default:
		return context.Cause(c.ctx)
	}
}

func decodeReply(e envelope, method string, out any) error {
	if e.Error != nil {
		return e.Error.decode()
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(e.Body, out); err != nil {
		return fmt.Errorf("%w: reply to %q: %w", errProtocol, method, err)
	}
	return nil
}

// request decodes a body and returns the task that works on it.
func request[In any](body json.RawMessage, work func(context.Context, In) (any, error)) (task, error) {
	var in In
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return func(ctx context.Context) (any, error) { return work(ctx, in) }, nil
}

// unknownMethod is the answer to a method that this end does not have. A
// newer peer may well try one, so it is not dropped for it.
func unknownMethod(method string) error {
	return fmt.Errorf("method %q: %w", method, errors.ErrUnsupported)
}

// logEnd logs why a connection has ended, loudly where the peer is to blame.
func (c *conn) logEnd(err error) {
	switch {
	case errors.Is(err, errProtocol), errors.Is(err, io.ErrUnexpectedEOF), isTimeout(err):
		c.log.Warn().Err(err).Msg("peer dropped")
	default:
		c.log.Debug().Err(err).Msg("connection ended")
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
