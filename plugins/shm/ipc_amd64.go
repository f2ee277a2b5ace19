package shm

// struct semid64_ds, arch/x86/include/uapi/asm/sembuf.h.
const (
	semCtimeAt = 64
	semCountAt = 80
)
