package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// coreLog is the value of the field plugin in the core's own lines.
const coreLog = "core"

// logTime is RFC 3339 with milliseconds, which a sequence of events needs.
const logTime = "2006-01-02T15:04:05.000Z07:00"

// logLevels returns the names that --log-level and --debug-logs take.
func logLevels() []string { return []string{"trace", "debug", "info", "warn", "error", "off"} }

// parseLevel takes a name of logLevels.
func parseLevel(name string) (zerolog.Level, error) {
	if !slices.Contains(logLevels(), name) {
		return 0, fmt.Errorf("unknown log level %q; known: %s", name, strings.Join(logLevels(), ", "))
	}
	if name == "off" {
		return zerolog.Disabled, nil
	}
	return zerolog.ParseLevel(name)
}

// parseDebugLogs reads the PLUGIN[=LEVEL] of --debug-logs. The level is debug
// where none is given.
func parseDebugLogs(specs, plugins []string) (map[string]zerolog.Level, error) {
	known := append([]string{coreLog}, plugins...)
	levels := make(map[string]zerolog.Level, len(specs))
	for _, spec := range specs {
		name, level, given := strings.Cut(spec, "=")
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--debug-logs: unknown plugin %q; known: %s", name, strings.Join(known, ", "))
		}
		if !given {
			level = "debug"
		}
		l, err := parseLevel(level)
		if err != nil {
			return nil, fmt.Errorf("--debug-logs: %s: %w", name, err)
		}
		levels[name] = l
	}
	return levels, nil
}

// logging says what is logged, and where to.
type logging struct {
	level   zerolog.Level
	plugins map[string]zerolog.Level // of single plugins, over level
	file    string                   // also written to, in JSON; "" for none
}

// open returns the logger of each plugin ("" is the core), and what ends
// the log. With a file, stderr has warnings and errors only: it is the
// program's as well.
func (l logging) open(stderr io.Writer) (func(plugin string) zerolog.Logger, func() error, error) {
	queue := newLogQueue(stderr)
	w, done := stderrLog(stderr, queue), queue.Close
	if l.file != "" {
		f, closeFile, err := openLogFile(l.file, w)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("log file: %w", err), queue.Close())
		}
		done = func() error { return errors.Join(closeFile(), queue.Close()) }
		w = zerolog.MultiLevelWriter(f, &zerolog.FilteredLevelWriter{
			Writer: zerolog.LevelWriterAdapter{Writer: w},
			Level:  zerolog.WarnLevel,
		})
	}
	base := zerolog.New(zerolog.SyncWriter(w)).Hook(zerolog.HookFunc(stamp))
	return func(plugin string) zerolog.Logger {
		if plugin == "" {
			plugin = coreLog
		}
		level, own := l.plugins[plugin]
		if !own {
			level = l.level
		}
		return base.Level(level).With().Str("plugin", plugin).Logger()
	}, done, nil
}

// openLogFile opens a log file. One that may block, as a terminal or a FIFO, is written to
// behind the caller's back; a FIFO needs a reader.
func openLogFile(path string, tell io.Writer) (w io.Writer, done func() error, err error) {
	f, err := appendTo(path, unix.O_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	log := &logFile{file: f, tell: tell}
	if info.Mode().IsRegular() {
		return log, f.Close, nil
	}
	queue := newLogQueue(log)
	return queue, func() error { return errors.Join(queue.Close(), f.Close()) }, nil
}

// logFile is a log file whose failure is told once, and is no error: zerolog would
// write each to standard error itself, past the queue, and wait there for a reader
// who may never come. The caller serialises Write.
type logFile struct {
	file io.Writer
	tell io.Writer // takes lines of the log, and never blocks
	told bool
}

func (l *logFile) Write(line []byte) (int, error) {
	if _, err := l.file.Write(line); err != nil && !l.told {
		l.told = true
		log := zerolog.New(l.tell).Hook(zerolog.HookFunc(stamp))
		log.Warn().Str("plugin", coreLog).Err(err).Msg("the log file cannot be written: lines are missing there")
	}
	return len(line), nil
}

// stderrLog writes to out, for people if stderr is a terminal, else JSON.
func stderrLog(stderr, out io.Writer) io.Writer {
	if !isTerminal(stderr) {
		return out
	}
	return zerolog.ConsoleWriter{Out: out, TimeFormat: "15:04:05.000", NoColor: os.Getenv("NO_COLOR") != ""}
}

func stamp(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().Format(logTime))
}
