package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	sectionTable = 4
	// maxTable is the most elements of a table of functions. The engine has
	// no limit of its own to what table.grow takes of the host's memory.
	maxTable  = 1 << 17
	maxTables = 16
)

var errTruncated = errors.New("the module is truncated")

// boundTables returns the module with a maximum for each of its tables, and
// checks the frame of its sections. All else is the engine's to validate.
func boundTables(module []byte) ([]byte, error) {
	const header = "\x00asm\x01\x00\x00\x00"
	if len(module) < len(header) || string(module[:4]) != header[:4] {
		return nil, errors.New("not a WASM module")
	}
	if string(module[:len(header)]) != header {
		return nil, errors.New("not a module of WASM version 1")
	}
	out := append(make([]byte, 0, len(module)+64), header...)
	rest := module[len(header):]
	for len(rest) > 0 {
		id := rest[0]
		size, n, err := varuint32(rest[1:])
		if err != nil {
			return nil, err
		}
		body := rest[1+n:]
		if uint64(size) > uint64(len(body)) {
			return nil, errTruncated
		}
		body, rest = body[:size], body[size:]
		if id == sectionTable {
			if body, err = boundTableSection(body); err != nil {
				return nil, fmt.Errorf("section of tables: %w", err)
			}
		}
		out = append(out, id)
		out = binary.AppendUvarint(out, uint64(len(body)))
		out = append(out, body...)
	}
	return out, nil
}

// boundTableSection gives each table a maximum of at most maxTable.
func boundTableSection(body []byte) ([]byte, error) {
	count, n, err := varuint32(body)
	if err != nil {
		return nil, err
	}
	if count > maxTables {
		return nil, fmt.Errorf("%d tables, at most %d are allowed", count, maxTables)
	}
	out := binary.AppendUvarint(nil, uint64(count))
	body = body[n:]
	for range count {
		if len(body) < 2 {
			return nil, errTruncated
		}
		kind, flags := body[0], body[1]
		if flags > 1 {
			return nil, fmt.Errorf("limits of the unknown form %d", flags)
		}
		body = body[2:]
		limits := [2]uint32{0, maxTable}
		for i := range int(flags) + 1 {
			if limits[i], n, err = varuint32(body); err != nil {
				return nil, err
			}
			body = body[n:]
		}
		if limits[0] > maxTable {
			return nil, fmt.Errorf("a table of %d elements, at most %d are allowed", limits[0], maxTable)
		}
		out = append(out, kind, 1)
		out = binary.AppendUvarint(out, uint64(limits[0]))
		out = binary.AppendUvarint(out, uint64(min(limits[1], maxTable)))
	}
	if len(body) > 0 {
		return nil, errors.New("bytes behind the last table")
	}
	return out, nil
}

// varuint32 reads a LEB128 number of 32 bits.
func varuint32(b []byte) (v uint32, n int, err error) {
	u, n := binary.Uvarint(b[:min(len(b), 5)])
	switch {
	case n == 0 && len(b) < 5:
		return 0, 0, errTruncated
	case n <= 0 || u > 1<<32-1:
		return 0, 0, errors.New("a number is longer than 32 bits")
	}
	return uint32(u), n, nil
}
