package sdk

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/hiatus-project/hiatus/sdk/abi"
)

// The shapes of the capabilities.
type (
	Mapping       = abi.Mapping
	Command       = abi.Command
	CommandResult = abi.CommandResult
	Request       = abi.Request
	Response      = abi.Response
	File          = abi.File
	Mark          = abi.Mark
	Own           = abi.Own
	Reopen        = abi.Reopen
	EnvChange     = abi.EnvChange
)

func decodeStrictly(data []byte, dst any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(dst)
}

func growJSON(dst any, get func([]byte) int32) error {
	data, err := grow(get)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, dst)
}

// send gives the host v as JSON.
func send(v any, put func([]byte) int32) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return check(put(data))
}

// Barrier waits until every agent of the computation has come to name, which
// stands in Definition.Barriers. Capability coord.
func Barrier(name string) error { return check(rawBarrier([]byte(name))) }

// Publish makes value known to Lookup under key, from the next barrier on.
// Capability coord.
func Publish(key string, value []byte) error { return check(rawPublish([]byte(key), value)) }

// Lookup returns what was published, in whatever agent. Capability coord.
func Lookup(key string) ([]byte, error) {
	return grow(func(b []byte) int32 { return rawLookup([]byte(key), b) })
}

// Maps lists the mappings of a process. Capability mem.read.
func Maps(pid int) (maps []Mapping, err error) {
	err = growJSON(&maps, func(b []byte) int32 { return rawMaps(int32(pid), b) })
	return maps, err
}

// ReadMemory fills b from the process's memory. Capability mem.read.
func ReadMemory(pid int, addr uint64, b []byte) error { return check(rawRead(int32(pid), addr, b)) }

// WriteMemory writes to the process's memory. Capability mem.write.
func WriteMemory(pid int, addr uint64, b []byte) error { return check(rawWrite(int32(pid), addr, b)) }

// Run runs a program that the grant names, to its end. Capability exec.
func Run(cmd Command) (result CommandResult, err error) {
	if err := send(cmd, rawRun); err != nil {
		return result, err
	}
	err = growJSON(&result, rawRunResult)
	return result, err
}

// Do makes a request to a host that the grant names. Capability http.
func Do(r Request) (response Response, err error) {
	if err := send(r, rawRequest); err != nil {
		return response, err
	}
	err = growJSON(&response, rawResponse)
	return response, err
}

// Environ returns the environment of a process of the tree, NAME=value, at
// PreCheckpoint, Resume and Running. Capability env.
func Environ(pid int) ([]string, error) {
	data, err := grow(func(b []byte) int32 { return rawEnvProcess(int32(pid), b) })
	return splitEnviron(data), err
}

// OwnEnviron returns the environment of the command that launched or restarts.
// Capability env.
func OwnEnviron() ([]string, error) {
	data, err := grow(rawEnvOwn)
	return splitEnviron(data), err
}

func splitEnviron(data []byte) []string {
	text := strings.TrimSuffix(string(data), "\x00")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}

// ChangeEnviron changes the environment of a process, or of all where pid is
// 0, at Restart. Capability env.
func ChangeEnviron(pid int, changes []EnvChange) error {
	return send(changes, func(b []byte) int32 { return rawEnvChange(int32(pid), b) })
}

// Files lists the open files of the tree, at PreCheckpoint. Capability files.
func Files() (files []File, err error) {
	err = growJSON(&files, rawFiles)
	return files, err
}

// MarkFile says what becomes of an open file. Capability files.
func MarkFile(m Mark) error { return send(m, rawMark) }

// MapPath has paths below from lead below to, at Restart. Capability path.
func MapPath(from, to string) error { return check(rawMapPath([]byte(from), []byte(to))) }

// OwnFD takes a descriptor that no built-in plugin keeps, at PreCheckpoint.
// Capability fd.
func OwnFD(o Own) error { return send(o, rawOwn) }

// SavedFD returns the bytes that OwnFD was given. Capability fd.
func SavedFD(pid, fd int) ([]byte, error) {
	return grow(func(b []byte) int32 { return rawSaved(int32(pid), int32(fd), b) })
}

// ReopenFD says, at Restart, what an owned descriptor is made of. Capability
// fd.
func ReopenFD(pid, fd int, r Reopen) error {
	return send(r, func(b []byte) int32 { return rawReopen(int32(pid), int32(fd), b) })
}

// KeepStopped has the program stay stopped behind this event, at Resume and
// Running; the event comes again after the milliseconds. Capability hold.
func KeepStopped(milliseconds int) error { return check(rawKeep(int32(milliseconds))) }
