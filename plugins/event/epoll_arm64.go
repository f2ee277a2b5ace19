package event

// struct epoll_event has its natural alignment, epoll_ctl(2).
const (
	eventDataOffset = 8
	eventSize       = 16
)
