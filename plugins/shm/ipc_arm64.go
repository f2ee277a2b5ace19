package shm

// struct semid64_ds, include/uapi/asm-generic/sembuf.h.
const (
	semCtimeAt = 56
	semCountAt = 64
)
