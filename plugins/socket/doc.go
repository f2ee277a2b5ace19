// Package socket keeps sockets of AF_UNIX whose other end is in the
// computation too, and those of AF_NETLINK. All others are refused by name.
//
// Nothing is taken out of a socket to save it. Data in flight is read with
// MSG_PEEK behind an offset that moves (SO_PEEK_OFF, socket(7)); what recvmsg
// cannot show, sock_diag(7) does: the inode of the peer, the directions that
// are shut down, the name as it was bound, the clients that wait.
//
// All UNIX sockets are made at once, when the processes exist: who calls
// socketpair, connect and listen is seen by SO_PEERCRED. Each queue is filled
// from where its messages came, and the directions are shut down, or the other
// end closed, only then; a datagram socket is connected when it has what did
// not come from its peer, from whom alone it takes messages afterwards.
package socket
