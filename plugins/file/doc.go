// Package file keeps open files: regular files and directories, deleted
// files, devices, pipes, FIFOs, ptys, the terminal and the standard
// descriptors of the launching command, with their locks.
//
// An open file description is looked at through a duplicate, which shares its
// offset and its status flags with the program: it is never moved, read or
// set with F_SETFL. What can only be seen by taking it out is the data queued
// in a pty; that is put back before the next call to the plugin.
//
// # Objects behind several descriptions
//
// A pipe, a pty or a deleted inode may be open through many descriptions,
// which are claimed one by one. Each has an entry of its own in the state, to
// which the descriptions refer. Whether an end of a pipe or the master of a
// pty is missing is known only when all have been claimed: the first
// SaveProcess of a checkpoint decides it and saves the content.
//
// In a restart the first ReopenFile that needs such an object makes it. The
// plugin keeps a descriptor of it, the anchor, so that no end is closed before
// all are open, and closes it in Running. Descriptions are made by opening
// /proc/self/fd/ANCHOR, so that each is one of its own.
package file
