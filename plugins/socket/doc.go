// Package socket keeps sockets: for now those of AF_UNIX whose other end is
// in the computation too, and listening ones. All others are refused by name.
//
// Nothing is taken out of a socket to save it. Data in flight is read with
// MSG_PEEK behind an offset that moves (SO_PEEK_OFF, socket(7)); what recvmsg
// cannot show, sock_diag(7) does: the inode of the peer, the directions that
// are shut down, the name as it was bound, the clients that wait.
//
// A pair is made again as a whole when its first end is wanted. Each queue is
// filled from the other end, and the directions are shut down, or the other
// end closed, only then.
package socket
