package wasm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// Info describes a module as it is, without running it.
type Info struct {
	ABI          int      `json:"abi"`
	Size         int64    `json:"size"` // of the file
	SHA256       string   `json:"sha256"`
	Capabilities []string `json:"capabilities"` // that it asks for
	Imports      []string `json:"imports"`
	Exports      []string `json:"exports"`
	MinMemory    uint64   `json:"min_memory"` // bytes
	WASI         bool     `json:"wasi"`
}

// Module is a loaded extension, of which any number of agents may make
// plugins.
type Module struct {
	Name    string
	Summary string
	Info    Info
	Kinds   []plugin.Kind // that the guest has subscribed to

	cfg      Config
	grants   Grants
	limits   Limits
	barriers []string
	skip     bool // its init has nothing to do here

	runtime  wazero.Runtime
	cache    wazero.CompilationCache
	compiled wazero.CompiledModule
	memory   allocator
	making   sync.WaitGroup // instances of the next sequences
}

// Inspect reads the module at path and says what it asks for.
func Inspect(ctx context.Context, path string) (Info, error) {
	m, err := read(ctx, Config{Path: path})
	if err != nil {
		return Info{}, fmt.Errorf("extension %s: %w", path, err)
	}
	defer m.Close(ctx)
	return m.Info, nil
}

// Load reads the module of cfg, checks it, and runs its init once to learn
// what it subscribes to. Nothing of the user's is touched.
func Load(ctx context.Context, cfg Config) (m *Module, err error) {
	name := cfg.Name
	if name == "" {
		name, err = NameOf(cfg.Path)
	} else {
		err = CheckName(name)
	}
	if err != nil {
		return nil, fmt.Errorf("extension %s: %w", cfg.Path, err)
	}
	m, err = load(ctx, cfg, name)
	if err != nil {
		return nil, fmt.Errorf("extension %s (%s): %w", name, cfg.Path, err)
	}
	return m, nil
}

func load(ctx context.Context, cfg Config, name string) (_ *Module, err error) {
	if cfg.Warning == nil {
		cfg.Warning = func(string, ...any) {}
	}
	grants, err := ParseGrants(cfg.Grants)
	if err != nil {
		return nil, err
	}
	m, err := read(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.Close(ctx)
		}
	}()
	m.Name, m.grants = name, grants
	if err := m.checkGrants(); err != nil {
		return nil, err
	}
	if err := m.link(ctx); err != nil {
		return nil, err
	}
	return m, m.discover(ctx)
}

// read reads and compiles.
func read(ctx context.Context, cfg Config) (_ *Module, err error) {
	m := &Module{cfg: cfg, limits: cfg.Limits.withDefaults()}
	if err := m.limits.check(); err != nil {
		return nil, err
	}
	code, err := readFile(cfg.Path)
	if err != nil {
		return nil, err
	}
	m.Info.Size, m.Info.SHA256 = int64(len(code)), fmt.Sprintf("%x", sha256.Sum256(code))
	if code, err = boundTables(code); err != nil {
		return nil, err
	}
	if err := m.compile(ctx, code); err != nil {
		m.Close(ctx)
		return nil, err
	}
	if err := m.describe(); err != nil {
		m.Close(ctx)
		return nil, err
	}
	return m, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	code, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err == nil && len(code) > maxModule {
		err = fmt.Errorf("larger than %d bytes", maxModule)
	}
	return code, err
}

// compile makes the runtime, with the cache where there is a usable one.
func (m *Module) compile(ctx context.Context, code []byte) error {
	if m.cfg.CacheDir == "" {
		return m.compileWith(ctx, code)
	}
	cache, err := openCache(m.cfg.CacheDir)
	if err == nil {
		m.cache = cache
		if err = m.compileWith(ctx, code); err == nil {
			return nil
		}
		m.Close(ctx)
	}
	if err := m.compileWith(ctx, code); err != nil {
		return err // the module's own fault
	}
	if cache != nil { // an entry is damaged, or the disk is full
		err = errors.Join(err, emptyCache(m.cfg.CacheDir))
	}
	if m.cfg.Warning != nil {
		m.cfg.Warning("extension %s: compiled without the cache: %v", m.cfg.Path, err)
	}
	return nil
}

func (m *Module) compileWith(ctx context.Context, code []byte) (err error) {
	config := wazero.NewRuntimeConfig().
		WithCoreFeatures(api.CoreFeaturesV2).
		WithMemoryLimitPages(uint32(m.limits.Memory / pageSize)).
		WithCloseOnContextDone(true).
		WithDebugInfoEnabled(false)
	if m.cache != nil {
		config = config.WithCompilationCache(m.cache)
	}
	m.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	// The compiler panics rather than returns where it finds a limit of its own.
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("cannot be compiled: %v", v)
		}
	}()
	m.compiled, err = m.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, 2), code)
	return err
}

// Settle waits until the instances of the next sequences are made, for
// benchmarks.
func (m *Module) Settle() { m.making.Wait() }

// Close frees the compiled code; plugins of the module must not be used any
// more.
func (m *Module) Close(ctx context.Context) {
	m.making.Wait()
	if m.runtime != nil {
		_ = m.runtime.Close(ctx)
		m.runtime = nil
	}
	m.memory.close()
	if m.cache != nil {
		_ = m.cache.Close(ctx)
		m.cache = nil
	}
}

// describe reads imports and exports, and checks them against the ABI.
func (m *Module) describe() error {
	var errs []error
	seen := map[string]bool{}
	for _, f := range m.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		m.Info.Imports = append(m.Info.Imports, module+" "+name)
		if module == wasi_snapshot_preview1.ModuleName {
			m.Info.WASI = true
			continue
		}
		if err := checkImport(module, name); err != nil {
			if !seen[err.Error()] {
				errs = append(errs, err)
				seen[err.Error()] = true
			}
			continue
		}
		if _, capability, _ := abi.Capability(module); capability != "" && !slices.Contains(m.Info.Capabilities, capability) {
			m.Info.Capabilities = append(m.Info.Capabilities, capability)
		}
	}
	for _, mem := range m.compiled.ImportedMemories() {
		module, name, _ := mem.Import()
		errs = append(errs, fmt.Errorf("imports the memory %s.%s; it must have its own", module, name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.Info.ABI = abi.Version
	return m.checkExports()
}

// checkImport holds one import against the ABI.
func checkImport(module, name string) error {
	version, capability, ok := abi.Capability(module)
	if !ok {
		return fmt.Errorf("imports %s.%s, which is no function of this ABI (%s)", module, name, abi.Base)
	}
	if version != strconv.Itoa(abi.Version) {
		if n, err := strconv.Atoi(version); err == nil && n > abi.Version {
			return fmt.Errorf("needs version %d of the ABI; this hiatus has version %d: a newer one is needed", n, abi.Version)
		}
		return fmt.Errorf("needs version %q of the ABI; this hiatus has version %d", version, abi.Version)
	}
	functions, ok := hostFunctions()[capability]
	if !ok {
		return fmt.Errorf("asks for the capability %q, which this hiatus does not have; known: %s", capability, strings.Join(abi.Capabilities(), ", "))
	}
	if !slices.ContainsFunc(functions, func(f hostFunction) bool { return f.name == name }) {
		return fmt.Errorf("imports %s.%s, which this hiatus does not have", module, name)
	}
	return nil
}

func (m *Module) checkExports() error {
	i32 := api.ValueTypeI32
	functions := m.compiled.ExportedFunctions()
	for name := range functions {
		m.Info.Exports = append(m.Info.Exports, name)
	}
	slices.Sort(m.Info.Exports)
	memory, ok := m.compiled.ExportedMemories()[abi.ExportMemory]
	if !ok {
		return fmt.Errorf("does not export its memory as %q", abi.ExportMemory)
	}
	m.Info.MinMemory = uint64(memory.Min()) * pageSize
	for _, want := range []struct {
		name            string
		params, results []api.ValueType
		optional        bool
	}{
		{abi.ExportInit, nil, []api.ValueType{i32}, false},
		{abi.ExportEvent, []api.ValueType{i32}, []api.ValueType{i32}, false},
		{abi.ExportStart, nil, nil, true},
	} {
		f, ok := functions[want.name]
		switch {
		case !ok && want.optional:
		case !ok && functions["_start"] != nil:
			return fmt.Errorf("does not export %s, but _start: build a reactor, not a command (go build -buildmode=c-shared, -mexec-model=reactor)", want.name)
		case !ok:
			return fmt.Errorf("does not export the function %s", want.name)
		case !slices.Equal(f.ParamTypes(), want.params) || !slices.Equal(f.ResultTypes(), want.results):
			return fmt.Errorf("its function %s has another type than the ABI says", want.name)
		}
	}
	return nil
}

// checkGrants refuses what was asked for and not granted.
func (m *Module) checkGrants() error {
	var missing []string
	for _, capability := range m.Info.Capabilities {
		if !m.grants.Has(capability) {
			missing = append(missing, capability)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("asks for %s, which is not granted: --with-plugin %s,grant=%s (or grants: in hiatus.yaml)",
		strings.Join(missing, ", "), m.cfg.Path, strings.Join(slices.Concat(m.cfg.Grants, missing), "+"))
}

// link makes the import modules that the guest uses.
func (m *Module) link(ctx context.Context) error {
	if m.Info.WASI {
		if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
			return err
		}
	}
	for capability, functions := range hostFunctions() {
		if capability != "" && !m.grants.Has(capability) {
			continue
		}
		module := abi.Base
		if capability != "" {
			module = abi.Module(capability)
		}
		b := m.runtime.NewHostModuleBuilder(module)
		for _, f := range functions {
			b.NewFunctionBuilder().WithGoModuleFunction(f.goFunction(strings.TrimPrefix(capability+"."+f.name, ".")), f.params(), f.results()).Export(f.name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// discover runs the guest's init in an instance of its own.
func (m *Module) discover(ctx context.Context) error {
	log := zerolog.Nop()
	in, skip, err := m.instantiate(ctx, &extension{mod: m, log: &log})
	if err != nil {
		return err
	}
	in.close()
	m.skip = skip
	m.Summary = cmp.Or(in.summary, "extension "+m.cfg.Path)
	m.Kinds, m.barriers = in.kinds, in.barriers
	if !skip && len(m.Kinds) == 0 {
		return errors.New("subscribes to no event")
	}
	return nil
}

// Definition describes the extension as a plugin. Each plugin that its New
// makes has instances of its own.
func (m *Module) Definition() plugin.Definition {
	return plugin.Definition{
		Name:     m.Name,
		Summary:  m.Summary,
		State:    stateFormat,
		Oldest:   stateFormat,
		Kinds:    allKinds(),
		Barriers: m.barriers,
		New: func(h plugin.Host) (plugin.Plugin, error) {
			if m.skip {
				return nil, plugin.ErrSkip
			}
			return &extension{mod: m, host: h, log: h.Log()}, nil
		},
	}
}

// allKinds are those of the ABI: the end of a sequence is the host's affair
// even where the guest does not want to know.
func allKinds() []plugin.Kind {
	var kinds []plugin.Kind
	for _, k := range abi.Kinds() {
		kinds = append(kinds, plugin.Kind(k))
	}
	return kinds
}
