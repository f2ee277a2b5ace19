// Package image writes, reads and verifies the images of checkpoints, and
// keeps the generations of a computation on disk.
//
// # On disk
//
//	DIR/                        --ckptdir
//	  NAME/                     a Store: one computation
//	    .lock                   flock(2), held while temporary folders are made and cleaned
//	    .owner                  flock(2), held by the one computation that writes here
//	    00001/                  a committed generation: %05d, so that ls sorts
//	      manifest.json         Manifest, the last file written
//	      agent-0/              one folder an agent
//	        image.hia           metadata and the index
//	        pages.0 pages.1 ... stripes: the content of memory
//	    .tmp-2-9f86d081884c7d65/  generation 2, not committed
//	      lock                  flock(2), held by its writer as long as it lives
//
// A generation is written whole into a .tmp- folder. Every file and folder is
// synced, the manifest last; then the folder is renamed to its number and the
// parent is synced. The rename is the commit point: rename(2) is atomic, so
// that a crash leaves either the whole generation or none. A .tmp- folder
// whose lock nobody holds belonged to a writer that died; the next
// [Store.Begin] removes it. [Store.Prune] renames a generation to a .tmp- name
// before it removes it. Folders have mode 0700 and files 0600, whatever the
// umask.
//
// The files of an agent are striped because the lock of one inode caps what
// can be written to one file, whatever the number of writers.
//
// # image.hia
//
// All numbers are little-endian; every sum is a 64-bit XXH3 without a seed.
// Each byte of the file is under a sum.
//
//	      0        8      10        12         16        20       24        32      40
//	header | magic | format | machine | page size | sections | stripes | extents | size | sum |
//	         89 48 49 41 0d 0a 1a 0a                                              of the 40 bytes before
//
//	section, as many as the header says
//	      0             2         4      8                16
//	       | name length | version | zero | payload length | name | payload | sum |
//	                                                                          of all before in the section
//
//	index, blocks of 8192 extents, the last one shorter
//	       | extent | extent | ... | sum |
//	                                 of the extents of the block
//	      0      8        16    24      28    32       36       38      39
//	extent | addr | offset | sum | space | len | stored | stripe | codec | zero |
//
// machine is the e_machine of elf(5); size is that of the whole file. A
// section is named after its owner (a plugin, or the engine) and carries the
// version of the owner's state; its payload is JSON, which this package does
// not look into.
//
// Extents are sorted by space and address and do not overlap. addr and len
// are multiples of the page size, len at most 1 MiB. A space is a number of
// the caller's: the private memory of one process, or one shared object. What
// no extent covers is zero, or was not in memory.
//
// # Stripes
//
// The extents of a stripe lie end to end from offset 0 to the end of the file,
// so that each byte is under the sum of one extent, which is the sum of the
// bytes as they are stored. Codec 0 is raw (stored = len). With the others
// stored < len, and each extent is one independent block: 1 is a zstd frame (RFC
// 8878) of a window of at most 1 MiB, 2 an s2 block, 3 an LZ4 block without a
// frame. An extent that does not shrink is stored raw. In an image without
// compression every offset is thus a multiple of the page size.
//
// # Chains
//
// An image may leave memory to its parent: an earlier generation of the same
// agent, beside it in the store, which the manifest names by its number and the
// sum of its image.hia. Codec 4 is inherited: nothing is stored (stripe, stored
// and sum are 0), len is at most 1 GiB, offset is the parent's number of the
// space, and the memory from addr to addr+len is what the parent has there at
// the same addresses, or nothing where it has nothing. So each page of an image
// is in exactly one place: stored, inherited, or nowhere, which is how memory
// that was given back or cleared since is told. No memory of a parent is
// inherited twice. A parent may have a parent; numbers descend, and a chain has at
// most 100 generations.
//
// # manifest.json
//
// A JSON object whose last member is the sum of all bytes before its line. It
// names the files of every agent with their sizes and the sum of each
// image.hia, which holds the sum of each extent: one chain from the manifest
// to each byte of memory.
//
// # Trust
//
// Sums find damage, not forgery. What protects a user is ownership: [Open] and
// [ReadManifest] read only regular files, never through a symbolic link, that
// belong to the effective user; root reads any. Whatever they contain, reading
// takes memory in proportion to the files' size, has no side effect, and ends
// in data or in one error, a [*FormatError] where the content is to blame.
package image
