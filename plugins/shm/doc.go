// Package shm keeps System V IPC – shared memory, semaphores, message queues –
// and POSIX message queues.
//
// The kernel's rules that it rests on:
//
//   - *_STAT_ANY lists every object of the caller's IPC namespace
//     (shmctl(2), semctl(2), msgctl(2)): the calls are injected, as
//     /proc/sysvipc shows the namespace of whoever reads it.
//   - The inode number of a mapping of a segment is its id (ipc/shm.c,
//     newseg). shm_nattch counts mappings, not processes: shm_open is called
//     for each part of a split one.
//   - /proc/sys/kernel/{shm,sem,msg}_next_id gives the next object its id. Before
//     Linux 5.19 an ordinary user may not write to it (ipc/ipc_sysctl.c), and the
//     ids of a new namespace are counted up to the one that is wanted.
//   - msgrcv(2) with MSG_COPY reads a message and leaves it.
//   - A semop(2) that fails changes nothing, and checks the range of the
//     undo count before it finds out that it would have to wait: ERANGE or
//     EAGAIN tell on which side of a bound the count is (ipc/sem.c,
//     perform_atomic_semop).
//   - Processes without a list of undo counts compare equal to one that never
//     had any, kcmp(2) KCMP_SYSVSEM.
//   - A message of a POSIX queue can be read only by taking it. It is taken
//     and sent again by one batch of calls in a process of the tree, which runs
//     to its end even if the supervisor dies (mq_overview(7)).
//   - A registered notification shows its sigev_value only in its signal
//     (mq_notify(3)): the same batch lets it fire, takes the signal and
//     registers it again.
package shm
