package proc

import (
	"os"
	"syscall"
	"time"

	"github.com/hiatus-project/hiatus/internal/linux"
	"github.com/hiatus-project/hiatus/internal/missing"
)

// State is the engine's section of an image. All ids are as the program sees
// them.
type State struct {
	Arch      string         `json:"arch"`
	Uid       int            `json:"uid"`
	Gid       int            `json:"gid"`
	BootID    string         `json:"boot_id"`
	Clocks    Clocks         `json:"clocks"`
	Reaper    int            `json:"reaper"`               // what a process without a parent in the tree sees as its parent
	Session   int            `json:"session"`              // of whoever launched the tree; 0: outside its pid namespace
	Terminal  bool           `json:"terminal,omitempty"`   // the tree had a terminal of whoever launched it
	Front     int            `json:"foreground,omitempty"` // the terminal's foreground process group
	OwnPtys   bool           `json:"own_ptys,omitempty"`   // the tree holds masters of pseudoterminals
	Vdso      []byte         `json:"vdso"`                 // the bytes of vdso(7)
	CPU       CPUState       `json:"cpu"`
	Processes []ProcessState `json:"processes"`          // parents first
	Objects   []ObjectState  `json:"objects,omitempty"`  // memory shared between processes
	Contents  []ContentState `json:"contents,omitempty"` // data of plugins
	Files     []FileState    `json:"files"`              // open file descriptions
	Refs      []MappedFile   `json:"mapped_files"`       // files that mappings refer to
	Exes      []ExeState     `json:"exes,omitempty"`     // files of programs that have no name any more
	UTS       []UTSState     `json:"uts,omitempty"`      // UTS namespaces of the tree's own
	Places    []PlaceState   `json:"places,omitempty"`   // working directories to be made again where they are gone

	written []*os.File // to be written back before the image is committed
	carried []carriedFile
	root    int // host id of a process that sees the files of mappings
}

// PlaceState is a directory.
type PlaceState struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"` // permissions
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
}

// Clocks are what the program's clocks showed when it was stopped.
type Clocks struct {
	Monotonic time.Duration `json:"monotonic"`
	Boottime  time.Duration `json:"boottime"`
	Offset    time.Duration `json:"monotonic_offset"` // of its time namespace from the host's
}

// ProcessState is one process.
type ProcessState struct {
	PID    int  `json:"pid"`
	PPID   int  `json:"ppid"` // 0: none in the tree
	PGID   int  `json:"pgid"`
	SID    int  `json:"sid"`
	Zombie bool `json:"zombie,omitempty"`
	// ExitCode is the wait status of a zombie or an exited leader. Of a stopped process it
	// is the signal by which it is, as long as its parent has not waited for that.
	ExitCode int `json:"exit_code,omitempty"`
	// ExitSignal is what its parent in the tree gets when it ends, clone(2); nil: SIGCHLD.
	ExitSignal *int `json:"exit_signal,omitempty"`
	// MadeBy is the thread of its parent that made it and whose end it is told of
	// (PR_SET_PDEATHSIG), where that is not the first, which makes all in a restart.
	MadeBy int `json:"made_by,omitempty"`
	// LeaderGone: the thread-group leader has exited; Threads has the others.
	LeaderGone bool `json:"leader_gone,omitempty"`
	Stopped    bool `json:"stopped,omitempty"` // by a stop signal
	StopSignal int  `json:"stop_signal,omitempty"`
	// Continued: SIGCONT has ended a stop, and its parent has not waited for that.
	Continued bool `json:"continued,omitempty"`
	Comm      text `json:"comm"`

	Exe        string           `json:"exe,omitempty"`
	ExeRef     int              `json:"exe_ref,omitempty"` // 1 is the first of State.Exes; 0: the file of its name
	Cwd        string           `json:"cwd,omitempty"`
	CwdGone    *uint32          `json:"cwd_gone,omitempty"`   // it is deleted, and had this mode
	Root       string           `json:"root,omitempty"`       // chroot(2); "": none
	Membarrier uint32           `json:"membarrier,omitempty"` // registrations, membarrier(2)
	States     uint64           `json:"states,omitempty"`     // of XSAVE that it has asked for, arch_prctl(2)
	Umask      int              `json:"umask"`
	UTS        int              `json:"uts,omitempty"` // its namespace: 1 is the first of State.UTS, 0 that of the agent
	Auxv       []byte           `json:"auxv,omitempty"`
	MM         MMState          `json:"mm"`
	Prctl      PrctlState       `json:"prctl"`
	Limits     []syscall.Rlimit `json:"limits,omitempty"` // by the number of the resource, getrlimit(2)
	OOMScore   int              `json:"oom_score_adj,omitempty"`
	CoreFilter uint32           `json:"coredump_filter"`
	Autogroup  int              `json:"autogroup_nice,omitempty"` // of its session, sched(7)
	LockFuture uint64           `json:"lock_future,omitempty"`    // flags of mlockall(2) for memory to come
	Cred       CredState        `json:"cred"`
	Actions    [][]byte         `json:"actions,omitempty"` // struct sigaction of the kernel, from signal 1
	Pending    [][]byte         `json:"pending,omitempty"` // siginfo_t of signals of the process
	Maps       []MapState       `json:"maps,omitempty"`
	Threads    []ThreadState    `json:"threads,omitempty"`
	Space      uint32           `json:"space"` // of its private memory in the image
	keptSpace  uint32           // and in that of the parent
	MaxFD      int              `json:"-"`

	children []*ProcessState // that are no zombies
}

// MMState holds the addresses of struct prctl_mm_map, PR_SET_MM_MAP(2const).
type MMState struct {
	StartCode  uint64 `json:"start_code"`
	EndCode    uint64 `json:"end_code"`
	StartData  uint64 `json:"start_data"`
	EndData    uint64 `json:"end_data"`
	StartBrk   uint64 `json:"start_brk"`
	Brk        uint64 `json:"brk"`
	StartStack uint64 `json:"start_stack"`
	ArgStart   uint64 `json:"arg_start"`
	ArgEnd     uint64 `json:"arg_end"`
	EnvStart   uint64 `json:"env_start"`
	EnvEnd     uint64 `json:"env_end"`
}

// PrctlState are attributes of a process set by prctl(2).
type PrctlState struct {
	Dumpable    int64 `json:"dumpable"`
	Subreaper   bool  `json:"subreaper,omitempty"`
	THPDisable  int64 `json:"thp_disable,omitempty"`  // PR_GET_THP_DISABLE
	MDWE        int64 `json:"mdwe,omitempty"`         // PR_GET_MDWE
	MergeMemory bool  `json:"merge_memory,omitempty"` // PR_GET_MEMORY_MERGE
}

// CredState are the credentials of a process or thread, credentials(7).
type CredState struct {
	Uid        [4]int    `json:"uid"` // real, effective, saved, file system
	Gid        [4]int    `json:"gid"`
	Groups     []int     `json:"groups,omitempty"`
	Caps       [3]uint64 `json:"caps"` // effective, permitted, inheritable
	Bounding   uint64    `json:"bounding"`
	Ambient    uint64    `json:"ambient,omitempty"`
	Securebits uint32    `json:"securebits,omitempty"`
	NoNewPrivs bool      `json:"no_new_privs,omitempty"`
}

// ThreadState is one thread.
type ThreadState struct {
	TID       int       `json:"tid"`
	Comm      text      `json:"comm"`
	Regs      Regs      `json:"regs"`
	Extra     []RegSet  `json:"extra"` // xstate and others
	Mask      uint64    `json:"mask"`
	Masked    bool      `json:"masked,omitempty"` // it is to make a call again that has a signal mask of its own
	AltStack  []byte    `json:"alt_stack"`        // stack_t
	TIDAddr   uint64    `json:"tid_address"`
	Robust    [2]uint64 `json:"robust_list"` // head, length
	Rseq      Rseq      `json:"rseq"`
	PDeathSig int       `json:"pdeath_signal,omitempty"`
	Pending   [][]byte  `json:"pending,omitempty"`
	Sleep     *Sleep    `json:"sleep,omitempty"`
	// Rest is what remains of the time-out of a call that is made again with it, which is in
	// a register, or where the kernel has left it. 0: it has none.
	Rest       time.Duration `json:"rest,omitempty"`
	Sched      SchedAttr     `json:"sched"`
	CPUs       []byte        `json:"cpus,omitempty"` // mask of sched_setaffinity(2), where it is not all processors
	TimerSlack uint64        `json:"timer_slack"`    // ns
	IOPrio     int           `json:"io_priority,omitempty"`
	Attr       AttrState     `json:"attr"`
	FS         *FSState      `json:"fs,omitempty"` // nil: shared with the process, CLONE_FS
	// Files is nil where it shares the descriptors of the process, CLONE_FILES.
	Files *TableState `json:"files,omitempty"`
	// Seccomp is nil where nothing is forbidden.
	Seccomp *SeccompState `json:"seccomp,omitempty"`
	// Cred is nil where it is that of the process.
	Cred *CredState `json:"cred,omitempty"`
}

// AttrState are attributes of a thread that only prctl(2) and its like set.
type AttrState struct {
	Personality uint32     `json:"personality,omitempty"`
	MCEKill     int64      `json:"mce_kill"`             // PR_MCE_KILL_GET
	TSC         int64      `json:"tsc,omitempty"`        // PR_GET_TSC; 0: not on this architecture
	Tagged      int64      `json:"tagged,omitempty"`     // PR_GET_TAGGED_ADDR_CTRL
	Speculation [3]int64   `json:"speculation"`          // PR_GET_SPECULATION_CTRL, by the kind
	IOFlusher   bool       `json:"io_flusher,omitempty"` // PR_SET_IO_FLUSHER
	NUMA        *NUMAState `json:"numa,omitempty"`       // nil: the default policy
}

// FSState is what threads share by CLONE_FS, where it is not the process's.
type FSState struct {
	Of    int    `json:"of"` // the first of the threads that share it
	Cwd   string `json:"cwd"`
	Umask int    `json:"umask"`
}

// UTSState is a UTS namespace, uts_namespaces(7).
type UTSState struct {
	Host   text `json:"host"`
	Domain text `json:"domain"`
}

// NUMAState is a memory policy, set_mempolicy(2).
type NUMAState struct {
	Mode  uint32 `json:"mode"`
	Nodes []byte `json:"nodes,omitempty"` // mask
}

// SchedAttr is the scheduling policy of a thread, sched_setattr(2).
type SchedAttr struct {
	Policy   uint32 `json:"policy,omitempty"`
	Flags    uint64 `json:"flags,omitempty"`
	Nice     int32  `json:"nice,omitempty"`
	Priority uint32 `json:"priority,omitempty"`
	Runtime  uint64 `json:"runtime,omitempty"`
	Deadline uint64 `json:"deadline,omitempty"`
	Period   uint64 `json:"period,omitempty"`
}

// RegSet is a register set as ptrace(2) PTRACE_GETREGSET gives it.
type RegSet struct {
	Note uint32 `json:"note"`
	Data []byte `json:"data"`
}

// MapKind tells how a mapping comes back.
type MapKind string

const (
	MapAnon   MapKind = "anon"   // private memory
	MapFile   MapKind = "file"   // a file, private or shared
	MapObject MapKind = "object" // memory shared between processes
	MapVdso   MapKind = "vdso"   // vdso, vvar: the kernel's own
	MapPlugin MapKind = "plugin" // the file comes from a plugin
	MapAttach MapKind = "attach" // a plugin attaches it, and it is filled through its mappings
)

// MapState is one mapping.
type MapState struct {
	Start  uint64       `json:"start"`
	End    uint64       `json:"end"`
	Prot   int          `json:"prot"`
	Shared bool         `json:"shared,omitempty"`
	Kind   MapKind      `json:"kind"`
	Offset uint64       `json:"offset,omitempty"`
	Ref    int          `json:"ref,omitempty"` // index in Refs or Objects
	Path   string       `json:"path,omitempty"`
	Owner  string       `json:"owner,omitempty"` // the plugin that claimed it
	Flags  []string     `json:"flags,omitempty"` // VmFlags that matter on restart
	NUMA   *NUMAState   `json:"numa,omitempty"`
	Guards []GuardRange `json:"guards,omitempty"` // MADV_GUARD_INSTALL
	Huge   int          `json:"huge,omitempty"`   // of pages of hugetlbfs: the power of two of their size
	Name   string       `json:"name,omitempty"`   // PR_SET_VMA_ANON_NAME
	Dev    uint64       `json:"dev,omitempty"`
	Ino    uint64       `json:"ino,omitempty"`

	content  contentKind
	onDisk   bool              // pages that are not in memory may be on a disk: a file's, whose last name is gone
	watched  bool              // by our own userfaultfd
	cuttable bool              // its file may be cut while a copy of it is read
	changed  bool              // a private mapping that may have been written to, of a file that others may cut
	kept     []linux.PageRange // of content, that the parent of the image has
}

// MappedFile is a file by which the image refers to clean memory: it must be
// the same on restart.
type MappedFile struct {
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	Mtime   time.Time `json:"mtime"`
	Ctime   time.Time `json:"ctime"`
	Dev     uint64    `json:"device"`
	Ino     uint64    `json:"inode"`
	Sum     uint64    `json:"sum,omitempty"`     // of its content, XXH3; 0: not taken
	Sure    bool      `json:"sure,omitempty"`    // the times are old enough to tell later changes
	Write   bool      `json:"write,omitempty"`   // mapped shared, and the tree writes to it so: its content may change
	Carried bool      `json:"carried,omitempty"` // the image has what is mapped of it
	// GoesOn says in older images of a file that is memory to its users, as those in
	// /dev/shm, that the program could write to it behind the checkpoint.
	GoesOn bool `json:"goes_on,omitempty"`
	// Content is kept of small files with Write, in case they are gone.
	Content []byte `json:"content,omitempty"`
	// Mode is the permissions of such a file, and Directory what it is in.
	Mode  uint32         `json:"mode,omitempty"`
	Owner *missing.Owner `json:"owner,omitempty"` // nil: an older image, which knows none of the three
	missing.Directory

	remake bool // from the image
}

// ObjectState is memory shared between processes: anonymous, or of a file
// without a name.
type ObjectState struct {
	Name  string `json:"name"` // as in /proc/PID/maps
	Size  uint64 `json:"size"`
	Space uint32 `json:"space"`
	// Attached: it has no descriptor, and comes back by mappings of the kind
	// MapAttach.
	Attached bool `json:"attached,omitempty"`
	Huge     int  `json:"huge,omitempty"` // of pages of hugetlbfs: the power of two of their size
	// File is the open file description, by its id, where the tree has one:
	// the plugin that keeps it keeps the content too.
	File int `json:"file,omitempty"`
}

// FileState is an open file description and the plugin that keeps it.
type FileState struct {
	ID    int            `json:"id"`
	Owner string         `json:"owner"`
	Link  string         `json:"link"`
	Flags int            `json:"flags"`
	Pos   int64          `json:"pos"`
	Stat  syscall.Stat_t `json:"stat"`
	Refs  []FileRef      `json:"refs"`
	Held  bool           `json:"held,omitempty"` // no descriptor, but another open file leads to it
}

// FileRef is a descriptor.
type FileRef struct {
	PID     int  `json:"pid"`
	FD      int  `json:"fd"`
	Cloexec bool `json:"cloexec,omitempty"`
}

// contentKind says which pages of a mapping are saved.
type contentKind uint8

const (
	contentNone    contentKind = iota
	contentPrivate             // pages that are not the file's
	contentAll                 // every page that is there
	contentRead                // every page, read in from its file
)

// GuardRange is the pages in [Start, End), each access to which is a fault.
type GuardRange struct {
	Start uint64 `json:"start"`
	End   uint64 `json:"end"`
}
