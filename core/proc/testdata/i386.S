// A 32-bit program: it says "ready", and "alive" for each byte that it reads.
	.globl _start
_start:
	movl $ready, %ecx
	movl $6, %edx
say:
	movl $4, %eax		// write(1, ecx, edx)
	movl $1, %ebx
	int $0x80
	movl $3, %eax		// read(0, byte, 1)
	movl $0, %ebx
	movl $byte, %ecx
	movl $1, %edx
	int $0x80
	cmpl $1, %eax
	jne end
	movl $alive, %ecx
	movl $6, %edx
	jmp say
end:
	movl $1, %eax		// exit(0)
	movl $0, %ebx
	int $0x80
	.data
ready:	.ascii "ready\n"
alive:	.ascii "alive\n"
byte:	.byte 0
	.section .note.GNU-stack, "", @progbits
