package proc

// There is no arch_prctl(2).

func askMachine(uint64) []call { return nil }

func (p *Process) machineRefusal([]call, []byte) error { return nil }

func permitted([]call, []byte) uint64 { return 0 }

func permit(uint64) []call { return nil }

// checkLive has nothing to refuse.
func (p *Process) checkLive(*Thread, []RegSet) error { return nil }
