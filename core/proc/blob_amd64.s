#include "textflag.h"

// The blob: position-independent code that is copied into the target. It is
// never called here. Offsets of its entries are in blob.go; the batch calls the sift
// itself.

// func blobText()
TEXT ·blobText(SB), NOSPLIT|NOFRAME, $0
	// Batch, at 0. rbx = records, r12 = their number, r13 = tgid and announcer<<32, r14 = tid,
	// rbp = escape. A record: nr, a0..a5, ret, flags; 72 bytes.
	// flags: 1 stop on error; 2 keep the result in r15; 4 sift instead; n<<8: argument n-1 := r15.
batch:
	TESTQ R12, R12
	JZ    done
	MOVL  64(BX), AX
	SHRL  $8, AX
	ANDL  $15, AX
	JZ    load
	MOVQ  R15, (BX)(AX*8)
load:
	MOVQ  (BX), AX
	MOVQ  8(BX), DI
	MOVQ  16(BX), SI
	MOVQ  24(BX), DX
	MOVQ  32(BX), R10
	MOVQ  40(BX), R8
	MOVQ  48(BX), R9
	TESTB $4, 64(BX)
	JNZ   sift
	SYSCALL
result:
	MOVQ  AX, 56(BX)
	TESTB $2, 64(BX)
	JZ    check
	MOVQ  AX, R15
check:
	TESTB $1, 64(BX)
	JZ    next
	CMPQ  AX, $-4095
	JCC   done
next:
	ADDQ  $72, BX
	DECQ  R12
	JMP   batch
done:
	MOVL  $234, AX // tgkill(tgid, tid, announcer): the tracer takes over here
	MOVL  R13, DI
	MOVQ  R14, SI
	MOVQ  R13, DX
	SHRQ  $32, DX
	SYSCALL
	JMP   BP // no tracer: escape

	// Reaper, at 256. rbx = 16 bytes of scratch, r12 = report descriptor.
	// Waits for children and writes {pid, status} of each change of state;
	// exits when none is left.
	PCALIGN $256
reap:
	MOVL  $61, AX // wait4(-1, &status, __WALL|WUNTRACED|WCONTINUED, NULL)
	MOVQ  $-1, DI
	LEAQ  8(BX), SI
	MOVL  $0x4000000a, DX
	XORL  R10, R10
	SYSCALL
	MOVQ  AX, (BX)
	TESTQ AX, AX
	JS    failed
	MOVL  $1, AX // write(report, scratch, 16)
	MOVQ  R12, DI
	MOVQ  BX, SI
	MOVL  $16, DX
	SYSCALL
	JMP   reap
failed:
	CMPQ  AX, $-10 // ECHILD
	JNE   reap
	MOVL  $231, AX // exit_group(0)
	XORL  DI, DI
	SYSCALL
	HLT

	// Pause loop, at 512.
	PCALIGN $256
	PCALIGN $512
park:
	MOVL  $34, AX // pause()
	SYSCALL
	JMP   park

	// Copy, at 768. rbx = two struct clone_args, 128 bytes apart, and at 256 the result; the rest
	// as in a batch without records. The middle process, which shares the memory, forks the copy:
	// so its parent is not the program. It does so for a tracer only, who sets r15.
	PCALIGN $256
copy:
	MOVL  $435, AX // clone3(rbx, 88)
	MOVQ  BX, DI
	MOVL  $88, SI
	SYSCALL
	MOVQ  AX, 256(BX)
	TESTQ AX, AX
	JZ    middle
	JS    done
	MOVQ  AX, DI // wait4(middle, NULL, __WALL, NULL)
	MOVL  $61, AX
	XORL  SI, SI
	MOVL  $0x40000000, DX
	XORL  R10, R10
	SYSCALL
	JMP   done
middle:
	XORL  DI, DI
	TESTQ R15, R15
	JZ    quit
	MOVL  $435, AX // clone3(rbx+128, 88)
	LEAQ  128(BX), DI
	MOVL  $88, SI
	SYSCALL
	TESTQ AX, AX
	JZ    park
	XORL  DI, DI
	TESTQ AX, AX
	JNS   quit
	SUBQ  AX, DI
quit:
	MOVL  $60, AX // exit(0, or the errno)
	SYSCALL
	HLT

	// Sift: rdi = ring of an AIO context, rsi = iocb, edx = number of its
	// slots. Moves all events of other iocbs up to the tail, and the head
	// behind those of this one. No stack, and no registers of the batch.
sift:
	MOVL 8(DI), R9   // head
	MOVL 12(DI), R10 // source, from the tail down
	MOVL R10, R11    // target
pick:
	CMPL  R10, R9
	JEQ   sifted
	TESTL R10, R10
	JNZ   down
	MOVL  DX, R10
down:
	DECL R10
	MOVL R10, AX
	SHLQ $5, AX
	LEAQ 32(DI)(AX*1), AX
	CMPQ 8(AX), SI
	JEQ  pick
	TESTL R11, R11
	JNZ   put
	MOVL  DX, R11
put:
	DECL R11
	MOVL R11, CX
	SHLQ $5, CX
	LEAQ 32(DI)(CX*1), CX
	MOVQ 0(AX), R8
	MOVQ R8, 0(CX)
	MOVQ 8(AX), R8
	MOVQ R8, 8(CX)
	MOVQ 16(AX), R8
	MOVQ R8, 16(CX)
	MOVQ 24(AX), R8
	MOVQ R8, 24(CX)
	JMP  pick
sifted:
	MOVL R11, 8(DI)
	XORL AX, AX
	JMP  result

// func blobTextPC() unsafe.Pointer
TEXT ·blobTextPC(SB), NOSPLIT, $0-8
	LEAQ ·blobText(SB), AX
	MOVQ AX, ret+0(FP)
	RET
