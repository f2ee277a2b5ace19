package event

// struct epoll_event is packed on x86-64 alone, epoll_ctl(2).
const (
	eventDataOffset = 4
	eventSize       = 12
)
