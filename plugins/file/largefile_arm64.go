package file

// largeFile is the kernel's O_LARGEFILE, which the C library hides.
const largeFile = 0o400000
