//! The worker's side of the support library's C interface: what cells report, and what the library is asked to do.
//!
//! The counterpart is `support/lib.rs`; [`INTERFACE`] is raised with every change. Cells share one that is loaded with them; a program whose
//! closures run in its own executable has one in itself, since its libstd is not the cells'.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString, c_void};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use serde::Serialize;

use super::channel::Channel;
use super::frames;
use super::system;
use crate::event::{Location, Panic};
use crate::wire::{End, FromWorker, Start};

const INTERFACE: u32 = 3;

/// Sends to the owner, and keeps what a run reports until it ends.
#[derive(Debug)]
pub(super) struct Reporter {
    channel: Channel,
    ticket: u64,
    panic: Option<Panic>,
    returned: Option<String>,
    changed: Vec<String>,
}

static REPORTER: OnceLock<Mutex<Reporter>> = OnceLock::new();

/// The reporter is static because cells call it through plain function pointers, from any thread.
pub(super) fn install(channel: Channel) -> &'static Mutex<Reporter> {
    REPORTER.get_or_init(|| {
        Mutex::new(Reporter {
            channel,
            ticket: 0,
            panic: None,
            returned: None,
            changed: Vec::new(),
        })
    })
}

/// Takes the reporter, whatever a thread did that held it.
pub(super) fn lock<T>(reporter: &Mutex<T>) -> MutexGuard<'_, T> {
    reporter.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reporter {
    /// Sends; a process whose owner is gone has nothing left to do.
    pub(super) fn send<M: Serialize>(&self, message: &M) {
        if self.channel.send(message).is_err() {
            system::leave(1);
        }
    }

    /// As [`Self::send`], with a payload and a descriptor.
    pub(super) fn send_with<M: Serialize>(
        &self,
        message: &M,
        payload: &[u8],
        passed: Option<&OwnedFd>,
    ) {
        if self.channel.send_with(message, payload, passed).is_err() {
            system::leave(1);
        }
    }

    pub(super) fn begin(&mut self, ticket: u64) {
        self.ticket = ticket;
        self.take_end();
    }

    /// What the run reported; nothing means that it completed.
    pub(super) fn take_end(&mut self) -> End {
        let (panic, returned) = (self.panic.take(), self.returned.take());
        let variables = std::mem::take(&mut self.changed);
        match (panic, returned) {
            (Some(panic), _) => End::Panicked(panic),
            (None, Some(error)) => End::Returned { error },
            (None, None) if !variables.is_empty() => End::TypesChanged { variables },
            (None, None) => End::Completed,
        }
    }
}

/// UTF-8 that is borrowed for the length of one call.
#[repr(C)]
struct Text {
    pointer: *const u8,
    length: usize,
}

impl Text {
    fn of(text: &str) -> Text {
        Text {
            pointer: text.as_ptr(),
            length: text.len(),
        }
    }

    fn read(&self) -> String {
        if self.pointer.is_null() {
            return String::new();
        }
        // SAFETY: the support library passes pointer and length of a `str` that it holds during the call.
        let bytes = unsafe { std::slice::from_raw_parts(self.pointer, self.length) };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

#[repr(C)]
struct Host {
    result: extern "C" fn(Text),
    panicked: extern "C" fn(Text, Text, u32, u32, *const usize, usize),
    returned: extern "C" fn(Text),
    type_changed: extern "C" fn(Text),
    trace: extern "C" fn(*mut usize, usize) -> usize,
}

static HOST: Host = Host {
    result: on_result,
    panicked: on_panicked,
    returned: on_returned,
    type_changed: on_type_changed,
    trace: on_trace,
};

fn with_reporter(use_it: impl FnOnce(&mut Reporter)) {
    if let Some(reporter) = REPORTER.get() {
        use_it(&mut lock(reporter));
    }
}

extern "C" fn on_result(text: Text) {
    let text = text.read();
    with_reporter(|reporter| {
        let ticket = reporter.ticket;
        reporter.send(&FromWorker::Result { ticket, text });
    });
}

extern "C" fn on_panicked(
    message: Text,
    file: Text,
    line: u32,
    column: u32,
    addresses: *const usize,
    count: usize,
) {
    let file = file.read();
    let location = (!file.is_empty()).then_some(Location { file, line, column });
    let addresses = if addresses.is_null() {
        &[]
    } else {
        // SAFETY: the support library passes pointer and length of a slice that it holds during the call.
        unsafe { std::slice::from_raw_parts(addresses, count) }
    };
    let panic = Panic {
        message: message.read(),
        location,
        frames: frames::user_frames(addresses),
    };
    with_reporter(|reporter| reporter.panic = Some(panic));
}

extern "C" fn on_trace(addresses: *mut usize, room: usize) -> usize {
    // SAFETY: the support library passes pointer and length of a slice that it lends for the call.
    let addresses = unsafe { std::slice::from_raw_parts_mut(addresses, room) };
    frames::trace(addresses)
}

extern "C" fn on_returned(text: Text) {
    let text = text.read();
    with_reporter(|reporter| reporter.returned = Some(text));
}

extern "C" fn on_type_changed(name: Text) {
    let name = name.read();
    with_reporter(|reporter| reporter.changed.push(name));
}

/// The loaded support library.
#[derive(Debug)]
pub(super) struct Support {
    cell_end: extern "C" fn(),
    panicked: extern "C" fn(Text),
    flush: extern "C" fn(),
    before_fork: extern "C" fn(),
    after_fork: extern "C" fn(),
    restored: extern "C" fn() -> bool,
}

#[path = "../../support/lib.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::panic,
    reason = "the source is a library of its own, of which a program without cells needs a part"
)]
mod own;

impl Support {
    /// Loads what cells need, for ever; a program without cells has it in itself. On failure the dynamic linker's words.
    pub(super) fn load(start: &Start) -> Result<Support, String> {
        let Some(support) = &start.support else {
            return Ok(Support::own());
        };
        for path in &start.preload {
            load(OsStr::from_bytes(path))?;
        }
        let library = load(OsStr::from_bytes(support))?;
        // SAFETY: the signatures are those of `support/lib.rs` at this interface's number, which is asked first.
        unsafe {
            let interface: extern "C" fn() -> u32 = *symbol(&library, c"chorus_support_interface")?;
            if interface() != INTERFACE {
                return Err(format!(
                    "the support library speaks interface {}, this program {INTERFACE}",
                    interface()
                ));
            }
            let init: unsafe extern "C" fn(*const Host) =
                *symbol(&library, c"chorus_support_init")?;
            init(&raw const HOST);
            let support = Support {
                cell_end: *symbol(&library, c"chorus_support_cell_end")?,
                panicked: *symbol(&library, c"chorus_support_panicked")?,
                flush: *symbol(&library, c"chorus_support_flush")?,
                before_fork: *symbol(&library, c"chorus_support_before_fork")?,
                after_fork: *symbol(&library, c"chorus_support_after_fork")?,
                restored: *symbol(&library, c"chorus_support_restored")?,
            };
            Ok(support)
        }
    }

    /// The library that is linked to this program.
    fn own() -> Support {
        // SAFETY: both tables and both texts are `repr(C)` and of one interface; this one lives as long as the process.
        let panicked = unsafe {
            own::chorus_support_init((&raw const HOST).cast());
            std::mem::transmute::<unsafe extern "C" fn(own::Text), extern "C" fn(Text)>(
                own::chorus_support_panicked,
            )
        };
        Support {
            cell_end: own::chorus_support_cell_end,
            panicked,
            flush: own::chorus_support_flush,
            before_fork: own::chorus_support_before_fork,
            after_fork: own::chorus_support_after_fork,
            restored: own::chorus_support_restored,
        }
    }

    /// After a cell: shows a panic that the user caught, writes out what is buffered.
    pub(super) fn cell_end(&self) {
        (self.cell_end)();
        flush_c();
    }

    /// After a closure that panicked: has the panic reported. `fallback` is its message if the hook has not seen it.
    pub(super) fn panicked(&self, fallback: &str) {
        (self.panicked)(Text::of(fallback));
    }

    /// Writes out what is buffered.
    pub(super) fn flush(&self) {
        (self.flush)();
        flush_c();
    }

    /// Runs `fork` while no other thread holds the locks of stdout and stderr.
    pub(super) fn around_fork<T>(&self, fork: impl FnOnce() -> T) -> T {
        flush_c();
        (self.before_fork)();
        let result = fork();
        (self.after_fork)();
        result
    }

    /// In a copy that took over: forgets a tokio runtime; whether there was one.
    pub(super) fn restored(&self) -> bool {
        (self.restored)()
    }
}

fn flush_c() {
    // SAFETY: null means all of C's output streams.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// A cell's function: takes and returns the variable store.
pub(super) type Entry = extern "C" fn(*mut c_void) -> *mut c_void;

/// Loads an artifact for ever and finds its function. On failure the dynamic linker's words.
pub(super) fn load_entry(artifact: &OsStr, entry: &str) -> Result<Entry, String> {
    let library = load(artifact)?;
    let name = std::ffi::CString::new(entry).map_err(|error| error.to_string())?;
    // SAFETY: the owner says that this is the function's type.
    unsafe { symbol::<Entry>(&library, &name).map(|entry| *entry) }
}

/// The shared objects that were loaded, and how often [`load_anew`] had been called by then.
static LOADED: Mutex<BTreeMap<OsString, u32>> = Mutex::new(BTreeMap::new());
static ANEW: AtomicU32 = AtomicU32::new(0);

/// Has shared objects that are loaded be loaded again, as others, when they are needed next: their statics, such as a pool, may believe in threads that are gone.
pub(super) fn load_anew() {
    ANEW.fetch_add(1, Ordering::Relaxed);
}

/// What to load for `path`. The dynamic linker knows a file by its inode, so what is to be loaded again is copied.
fn to_load(path: &OsStr) -> OsString {
    let anew = ANEW.load(Ordering::Relaxed);
    let mut loaded = lock(&LOADED);
    let before = *loaded.entry(path.to_owned()).or_insert(anew);
    if before == anew {
        return path.to_owned();
    }
    let mut copy = path.to_owned();
    copy.push(format!(".{}-{anew}.so", std::process::id()));
    if loaded.contains_key(&copy) {
        return copy;
    }
    // A reader of panics' places looks into it later, so it stays as long as the session's folder.
    match std::fs::copy(path, &copy) {
        Ok(_) => {
            loaded.insert(copy.clone(), anew);
            copy
        }
        Err(_) => path.to_owned(),
    }
}

/// Loads a shared object and never unloads it: destructors of thread-local values, variables and vtables point into it.
pub(super) fn load(path: &OsStr) -> Result<std::mem::ManuallyDrop<Library>, String> {
    let path = &*to_load(path);
    // SAFETY: its constructors are the user's own code.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        .map(std::mem::ManuallyDrop::new)
        .map_err(words)
}

/// # Safety
/// The symbol is a `T`.
unsafe fn symbol<T>(library: &Library, name: &std::ffi::CStr) -> Result<Symbol<T>, String> {
    // SAFETY: the caller's promise.
    unsafe { library.get(name.to_bytes_with_nul()) }.map_err(words)
}

/// libloading wraps what `dlerror` said.
fn words(error: libloading::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        words = inner.to_string();
        source = inner.source();
    }
    words
}
