package proc

import (
	"bytes"
	"unsafe"
)

// Entries of the blob's code.
const (
	blobBatch  = 0
	blobReaper = 256
	blobPark   = 512
	blobCopy   = 768
	blobLen    = 2048
)

// Layout of the memory mapped for injection: a page of code, records, scratch
// for arguments, and the escape routine of the thread that runs a batch.
const (
	blobCodeSize   = 4096
	blobRecords    = 128 << 10
	blobScratch    = 128 << 10
	blobEscape     = 4096
	blobRecordsOff = blobCodeSize
	blobScratchOff = blobRecordsOff + blobRecords
	blobEscapeOff  = blobScratchOff + blobScratch
	blobSize       = blobEscapeOff + blobEscape
	blobReportOff  = blobEscapeOff // scratch of the reaper, which has no escape
	maxRecords     = blobRecords / recordSize
)

//lint:ignore U1000 it is only ever read, by its address
func blobText()
func blobTextPC() unsafe.Pointer

// blobCode returns the machine code: the text of this program's own blobText.
func blobCode() []byte {
	return unsafe.Slice((*byte)(blobTextPC()), blobLen)
}

// blobEnd is the offset of the jump to the escape: where a thread stands when
// it has announced the end of a batch.
func blobEnd() int { return bytes.Index(blobCode(), escapeJump) }
