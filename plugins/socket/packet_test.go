package socket

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestPacketStateIsValidated(t *testing.T) {
	good := packetSocket{Type: unix.SOCK_RAW, Device: "lo", Members: []packetMember{{Interface: "lo", Address: make([]byte, 6), Count: 1}},
		Values: map[int]int{unix.PACKET_AUXDATA: 1}}
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*packetSocket){
		"type":   func(s *packetSocket) { s.Type = unix.SOCK_STREAM },
		"device": func(s *packetSocket) { s.Device = "0123456789abcdef" },
		"option": func(s *packetSocket) { s.Values = map[int]int{unix.PACKET_RX_RING: 1} },
		"member": func(s *packetSocket) { s.Members = []packetMember{{Interface: "", Count: 1}} },
		"address": func(s *packetSocket) {
			s.Members = []packetMember{{Interface: "lo", Address: make([]byte, 33), Count: 1}}
		},
		"count": func(s *packetSocket) { s.Members = []packetMember{{Interface: "lo"}} },
	} {
		s := good
		if change(&s); s.validate() == nil {
			t.Errorf("%s: %+v is accepted", name, s)
		}
	}
}

func FuzzParsePacketDiag(f *testing.F) {
	f.Add([]byte("\x30\x00\x00\x00\x14\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x11\x03\x00\x03\x07\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"+
		"\x08\x00\x01\x00\x01\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00"), uint32(7))
	f.Fuzz(func(_ *testing.T, raw []byte, ino uint32) { _, _ = parsePacketDiag(raw, ino) })
}
