#include "textflag.h"

// The blob: position-independent code that is copied into the target. It is
// never called here. Offsets of its entries are in blob.go; the batch calls the sift
// itself.

// func blobText()
TEXT ·blobText(SB), NOSPLIT|NOFRAME, $0
	// Batch, at 0. x19 = records, x20 = their number, x22 = tgid and announcer<<32, x23 = tid,
	// x24 = escape. A record: nr, a0..a5, ret, flags; 72 bytes.
	// flags: 1 stop on error; 2 keep the result in x21; 4 sift instead; n<<8: argument n-1 := x21.
batch:
	CBZ  R20, done
	MOVD 64(R19), R9
	LSR  $8, R9, R9
	AND  $15, R9, R9
	CBZ  R9, load
	ADD  R9<<3, R19, R10
	MOVD R21, (R10)
load:
	MOVD (R19), R8
	MOVD 8(R19), R0
	MOVD 16(R19), R1
	MOVD 24(R19), R2
	MOVD 32(R19), R3
	MOVD 40(R19), R4
	MOVD 48(R19), R5
	MOVD 64(R19), R9
	TBNZ $2, R9, sift
	SVC
result:
	MOVD R0, 56(R19)
	MOVD 64(R19), R9
	TBZ  $1, R9, check
	MOVD R0, R21
check:
	TBZ  $0, R9, next
	CMN  $4095, R0
	BHS  done
next:
	ADD  $72, R19
	SUB  $1, R20
	B    batch
done:
	MOVD  $131, R8 // tgkill(tgid, tid, announcer): the tracer takes over here
	MOVWU R22, R0
	MOVD  R23, R1
	LSR   $32, R22, R2
	SVC
	B    (R24) // no tracer: escape

	// Reaper, at 256. x19 = 16 bytes of scratch, x20 = report descriptor.
	// Waits for children and writes {pid, status} of each change of state;
	// exits when none is left.
	PCALIGN $256
reap:
	MOVD $260, R8 // wait4(-1, &status, __WALL|WUNTRACED|WCONTINUED, NULL)
	MOVD $-1, R0
	ADD  $8, R19, R1
	MOVD $0x4000000a, R2
	MOVD $0, R3
	SVC
	MOVD R0, (R19)
	TBNZ $63, R0, failed
	MOVD $64, R8 // write(report, scratch, 16)
	MOVD R20, R0
	MOVD R19, R1
	MOVD $16, R2
	SVC
	B    reap
failed:
	CMN  $10, R0 // ECHILD
	BNE  reap
	MOVD $94, R8 // exit_group(0)
	MOVD $0, R0
	SVC

	// Wait loop, at 512.
	PCALIGN $256
	PCALIGN $512
park:
	MOVD $73, R8 // ppoll(NULL, 0, NULL, NULL)
	MOVD $0, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $0, R3
	MOVD $0, R4
	SVC
	B    park

	// Copy, at 768. x19 = two struct clone_args, 128 bytes apart, and at 256 the result; the rest
	// as in a batch without records. The middle process, which shares the memory, forks the copy:
	// so its parent is not the program. It does so for a tracer only, who sets x21.
	PCALIGN $256
copy:
	MOVD $435, R8 // clone3(x19, 88)
	MOVD R19, R0
	MOVD $88, R1
	SVC
	MOVD R0, 256(R19)
	CBZ  R0, middle
	TBNZ $63, R0, done
	MOVD $260, R8 // wait4(middle, NULL, __WALL, NULL)
	MOVD $0, R1
	MOVD $0x40000000, R2
	MOVD $0, R3
	SVC
	B    done
middle:
	MOVD $0, R0
	CBZ  R21, quit
	MOVD $435, R8 // clone3(x19+128, 88)
	ADD  $128, R19, R0
	MOVD $88, R1
	SVC
	CBZ  R0, park
	TBNZ $63, R0, refused
	MOVD $0, R0
	B    quit
refused:
	NEG  R0, R0
quit:
	MOVD $93, R8 // exit(0, or the errno)
	SVC

	// Sift: x0 = ring of an AIO context, x1 = iocb, w2 = number of its slots.
	// Moves all events of other iocbs up to the tail, and the head behind
	// those of this one. No stack, and no registers of the batch.
sift:
	MOVWU 8(R0), R9   // head
	MOVWU 12(R0), R10 // source, from the tail down
	MOVWU R10, R11    // target
pick:
	CMPW R9, R10
	BEQ  sifted
	CBNZW R10, down
	MOVWU R2, R10
down:
	SUBW $1, R10
	ADD  R10<<5, R0, R12
	MOVD 40(R12), R13
	CMP  R1, R13
	BEQ  pick
	CBNZW R11, put
	MOVWU R2, R11
put:
	SUBW $1, R11
	ADD  R11<<5, R0, R14
	LDP  32(R12), (R3, R4)
	STP  (R3, R4), 32(R14)
	LDP  48(R12), (R3, R4)
	STP  (R3, R4), 48(R14)
	B    pick
sifted:
	MOVW R11, 8(R0)
	MOVD $0, R0
	B    result

// func blobTextPC() unsafe.Pointer
TEXT ·blobTextPC(SB), NOSPLIT, $0-8
	MOVD $·blobText(SB), R0
	MOVD R0, ret+0(FP)
	RET
