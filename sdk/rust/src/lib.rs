//! Extensions of Hiatus in Rust. `sdk/abi/ABI.md` describes each function, its
//! errors, and the JSON that it takes or gives.
//!
//! ```ignore
//! fn init() -> hiatus::Result { hiatus::subscribe(hiatus::PRECHECKPOINT) }
//! fn event(kind: u32) -> hiatus::Result { hiatus::log(hiatus::INFO, "stopped"); Ok(()) }
//! hiatus::plugin!(init, event);
//! ```
//!
//! A function that is called becomes an import; one of a capability must be
//! granted by the user.

pub const PRESUSPEND: u32 = 1;
pub const PRECHECKPOINT: u32 = 2;
pub const RESUME: u32 = 3;
pub const RESTART: u32 = 4;
pub const RUNNING: u32 = 5;
pub const LAUNCH: u32 = 6;
pub const EXIT: u32 = 7;
pub const OUTCOME: u32 = 8;

pub const TRACE: i32 = 0;
pub const DEBUG: i32 = 1;
pub const INFO: i32 = 2;
pub const WARN: i32 = 3;
pub const ERROR: i32 = 4;

/// What a host function, or the extension itself, says of its failure.
#[derive(Debug)]
pub struct Error {
    /// The number of the ABI, 0 for an error of the extension's own.
    pub code: i32,
    pub text: String,
}

pub type Result<T = ()> = core::result::Result<T, Error>;

impl<S: Into<String>> From<S> for Error {
    fn from(text: S) -> Error {
        Error { code: 0, text: text.into() }
    }
}

fn check(code: i32) -> Result<i32> {
    if code >= 0 {
        return Ok(code);
    }
    let mut buf = [0u8; 1024];
    let n = unsafe { raw::last_error(buf.as_mut_ptr(), buf.len() as u32) };
    let text = String::from_utf8_lossy(&buf[..(n.max(0) as usize).min(buf.len())]).into_owned();
    Err(Error { code, text })
}

/// Calls `get` with a larger buffer until the answer fits.
fn grow(get: impl Fn(*mut u8, u32) -> i32) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; 4096];
    loop {
        let n = check(get(buf.as_mut_ptr(), buf.len() as u32))? as usize;
        let fits = n <= buf.len();
        buf.resize(n, 0);
        if fits {
            return Ok(buf);
        }
    }
}

#[doc(hidden)]
pub fn finish(result: Result) -> i32 {
    match result {
        Ok(()) => 0,
        Err(e) => {
            unsafe { raw::fail(e.text.as_ptr(), e.text.len() as u32) };
            1
        }
    }
}

/// Exports the two functions of the ABI.
#[macro_export]
macro_rules! plugin {
    ($init:path, $event:path) => {
        #[no_mangle]
        pub extern "C" fn hiatus_init() -> i32 {
            $crate::finish($init())
        }
        #[no_mangle]
        pub extern "C" fn hiatus_event(kind: u32) -> i32 {
            $crate::finish($event(kind))
        }
    };
}

mod raw {
    #[link(wasm_import_module = "hiatus/1")]
    extern "C" {
        #[link_name = "event"]
        pub fn event(buf: *mut u8, limit: u32) -> i32;
        #[link_name = "config"]
        pub fn config(buf: *mut u8, limit: u32) -> i32;
        #[link_name = "state_read"]
        pub fn state_read(buf: *mut u8, limit: u32) -> i32;
        #[link_name = "state_write"]
        pub fn state_write(a: *const u8, a_len: u32) -> i32;
        #[link_name = "log"]
        pub fn log(a: i32, b: *const u8, b_len: u32);
        #[link_name = "fail"]
        pub fn fail(a: *const u8, a_len: u32);
        #[link_name = "subscribe"]
        pub fn subscribe(a: u32) -> i32;
        #[link_name = "describe"]
        pub fn describe(a: *const u8, a_len: u32) -> i32;
        #[link_name = "features"]
        pub fn features(buf: *mut u8, limit: u32) -> i32;
        #[link_name = "last_error"]
        pub fn last_error(buf: *mut u8, limit: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/coord")]
    extern "C" {
        #[link_name = "declare"]
        pub fn coord_declare(a: *const u8, a_len: u32) -> i32;
        #[link_name = "barrier"]
        pub fn coord_barrier(a: *const u8, a_len: u32) -> i32;
        #[link_name = "publish"]
        pub fn coord_publish(a: *const u8, a_len: u32, b: *const u8, b_len: u32) -> i32;
        #[link_name = "lookup"]
        pub fn coord_lookup(a: *const u8, a_len: u32, buf: *mut u8, limit: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/mem.read")]
    extern "C" {
        #[link_name = "maps"]
        pub fn mem_maps(a: i32, buf: *mut u8, limit: u32) -> i32;
        #[link_name = "read"]
        pub fn mem_read(a: i32, b: u64, buf: *mut u8, limit: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/mem.write")]
    extern "C" {
        #[link_name = "write"]
        pub fn mem_write(a: i32, b: u64, c: *const u8, c_len: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/env")]
    extern "C" {
        #[link_name = "process"]
        pub fn env_process(a: i32, buf: *mut u8, limit: u32) -> i32;
        #[link_name = "own"]
        pub fn env_own(buf: *mut u8, limit: u32) -> i32;
        #[link_name = "change"]
        pub fn env_change(a: i32, b: *const u8, b_len: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/files")]
    extern "C" {
        #[link_name = "list"]
        pub fn files_list(buf: *mut u8, limit: u32) -> i32;
        #[link_name = "mark"]
        pub fn files_mark(a: *const u8, a_len: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/path")]
    extern "C" {
        #[link_name = "map"]
        pub fn path_map(a: *const u8, a_len: u32, b: *const u8, b_len: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/fd")]
    extern "C" {
        #[link_name = "own"]
        pub fn fd_own(a: *const u8, a_len: u32) -> i32;
        #[link_name = "saved"]
        pub fn fd_saved(a: i32, b: i32, buf: *mut u8, limit: u32) -> i32;
        #[link_name = "reopen"]
        pub fn fd_reopen(a: i32, b: i32, c: *const u8, c_len: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/exec")]
    extern "C" {
        #[link_name = "run"]
        pub fn exec_run(a: *const u8, a_len: u32) -> i32;
        #[link_name = "result"]
        pub fn exec_result(buf: *mut u8, limit: u32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/hold")]
    extern "C" {
        #[link_name = "keep"]
        pub fn hold_keep(a: i32) -> i32;
    }
    #[link(wasm_import_module = "hiatus/1/http")]
    extern "C" {
        #[link_name = "request"]
        pub fn http_request(a: *const u8, a_len: u32) -> i32;
        #[link_name = "response"]
        pub fn http_response(buf: *mut u8, limit: u32) -> i32;
    }
}

/// Writes to the log.
pub fn log(level: i32, text: &str) {
    unsafe { raw::log(level, text.as_ptr(), text.len() as u32) }
}

/// `event` of `hiatus/1`.
pub fn event() -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::event(buf, limit) })
}

/// `config` of `hiatus/1`.
pub fn config() -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::config(buf, limit) })
}

/// `state_read` of `hiatus/1`.
pub fn state_read() -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::state_read(buf, limit) })
}

/// `state_write` of `hiatus/1`.
pub fn state_write(a: &[u8]) -> Result {
    check(unsafe { raw::state_write(a.as_ptr(), a.len() as u32) }).map(|_| ())
}

/// `subscribe` of `hiatus/1`.
pub fn subscribe(a: u32) -> Result {
    check(unsafe { raw::subscribe(a) }).map(|_| ())
}

/// `describe` of `hiatus/1`.
pub fn describe(a: &[u8]) -> Result {
    check(unsafe { raw::describe(a.as_ptr(), a.len() as u32) }).map(|_| ())
}

/// `features` of `hiatus/1`.
pub fn features() -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::features(buf, limit) })
}

/// `declare` of `hiatus/1/coord`.
pub fn coord_declare(a: &[u8]) -> Result {
    check(unsafe { raw::coord_declare(a.as_ptr(), a.len() as u32) }).map(|_| ())
}

/// `barrier` of `hiatus/1/coord`.
pub fn coord_barrier(a: &[u8]) -> Result {
    check(unsafe { raw::coord_barrier(a.as_ptr(), a.len() as u32) }).map(|_| ())
}

/// `publish` of `hiatus/1/coord`.
pub fn coord_publish(a: &[u8], b: &[u8]) -> Result {
    check(unsafe { raw::coord_publish(a.as_ptr(), a.len() as u32, b.as_ptr(), b.len() as u32) }).map(|_| ())
}

/// `lookup` of `hiatus/1/coord`.
pub fn coord_lookup(a: &[u8]) -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::coord_lookup(a.as_ptr(), a.len() as u32, buf, limit) })
}

/// `maps` of `hiatus/1/mem.read`.
pub fn mem_maps(a: i32) -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::mem_maps(a, buf, limit) })
}

/// `read` of `hiatus/1/mem.read`.
pub fn mem_read(pid: i32, addr: u64, buf: &mut [u8]) -> Result {
    check(unsafe { raw::mem_read(pid, addr, buf.as_mut_ptr(), buf.len() as u32) }).map(|_| ())
}

/// `write` of `hiatus/1/mem.write`.
pub fn mem_write(a: i32, b: u64, c: &[u8]) -> Result {
    check(unsafe { raw::mem_write(a, b, c.as_ptr(), c.len() as u32) }).map(|_| ())
}

/// `process` of `hiatus/1/env`.
pub fn env_process(a: i32) -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::env_process(a, buf, limit) })
}

/// `own` of `hiatus/1/env`.
pub fn env_own() -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::env_own(buf, limit) })
}

/// `change` of `hiatus/1/env`.
pub fn env_change(a: i32, b: &[u8]) -> Result {
    check(unsafe { raw::env_change(a, b.as_ptr(), b.len() as u32) }).map(|_| ())
}

/// `list` of `hiatus/1/files`.
pub fn files_list() -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::files_list(buf, limit) })
}

/// `mark` of `hiatus/1/files`.
pub fn files_mark(a: &[u8]) -> Result {
    check(unsafe { raw::files_mark(a.as_ptr(), a.len() as u32) }).map(|_| ())
}

/// `map` of `hiatus/1/path`.
pub fn path_map(a: &[u8], b: &[u8]) -> Result {
    check(unsafe { raw::path_map(a.as_ptr(), a.len() as u32, b.as_ptr(), b.len() as u32) }).map(|_| ())
}

/// `own` of `hiatus/1/fd`.
pub fn fd_own(a: &[u8]) -> Result {
    check(unsafe { raw::fd_own(a.as_ptr(), a.len() as u32) }).map(|_| ())
}

/// `saved` of `hiatus/1/fd`.
pub fn fd_saved(a: i32, b: i32) -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::fd_saved(a, b, buf, limit) })
}

/// `reopen` of `hiatus/1/fd`.
pub fn fd_reopen(a: i32, b: i32, c: &[u8]) -> Result {
    check(unsafe { raw::fd_reopen(a, b, c.as_ptr(), c.len() as u32) }).map(|_| ())
}

/// `run` of `hiatus/1/exec`.
pub fn exec_run(a: &[u8]) -> Result {
    check(unsafe { raw::exec_run(a.as_ptr(), a.len() as u32) }).map(|_| ())
}

/// `result` of `hiatus/1/exec`.
pub fn exec_result() -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::exec_result(buf, limit) })
}

/// `keep` of `hiatus/1/hold`.
pub fn hold_keep(a: i32) -> Result {
    check(unsafe { raw::hold_keep(a) }).map(|_| ())
}

/// `request` of `hiatus/1/http`.
pub fn http_request(a: &[u8]) -> Result {
    check(unsafe { raw::http_request(a.as_ptr(), a.len() as u32) }).map(|_| ())
}

/// `response` of `hiatus/1/http`.
pub fn http_response() -> Result<Vec<u8>> {
    grow(|buf, limit| unsafe { raw::http_response(buf, limit) })
}
