//! What every cell's shared object and the runtime have in common: the variable store, the panic hook, and the
//! calls by which generated code tells the runtime how the cell went.
//!
//! Compiled by the user's own rustc to `libchorus_support.so` (crate name `chorus_support`, edition 2024,
//! `--crate-type dylib -C prefer-dynamic -C opt-level=2`), so that it shares one libstd with all cells; the runtime itself
//! carries a libstd of its own. Between the two there is only the C interface at the end of this file.
//!
//! Everything generic here is compiled again in every cell, where each line costs latency: generic functions
//! only box, cast and call the non-generic ones.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{StderrLock, StdoutLock, Write as _};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};

/// Raised whenever the C interface changes; the runtime refuses a library with another number.
const INTERFACE: u32 = 3;

/// The name under which an async cell keeps its tokio runtime in the store.
const TOKIO_RUNTIME: &str = "evcxr_tokio_runtime";

/// How many frames of a panic are remembered.
const FRAMES: usize = 128;

/// The variables of a namespace, by name. Cells take what they use and put back what they leave.
#[derive(Debug, Default)]
pub struct VariableStore {
    variables: HashMap<String, Box<dyn Any>>,
}

impl VariableStore {
    /// Stores `value` under `name`; a value that was there is dropped.
    #[inline]
    pub fn put_variable<T: 'static>(&mut self, name: &str, value: T) {
        self.put(name, Box::new(value));
    }

    /// Whether `name` can be taken as a `T`. A value of another type is reported to the runtime and stays.
    #[inline]
    pub fn check_variable<T: 'static>(&mut self, name: &str) -> bool {
        self.check(name, TypeId::of::<T>())
    }

    /// Takes the value out of the store.
    ///
    /// # Panics
    /// When there is no such variable, or it has another type: generated code asks `check_variable` first.
    #[inline]
    pub fn take_variable<T: 'static>(&mut self, name: &str) -> T {
        let value = self.take(name, TypeId::of::<T>());
        // SAFETY: `take` returns only a value whose type is the one asked for.
        *unsafe { Box::from_raw(Box::into_raw(value).cast::<T>()) }
    }

    /// The shared value under `name`, made by `create` when it is not there yet, or of another type.
    pub fn lazy_arc<T: 'static, F: FnOnce() -> T>(&mut self, name: &str, create: F) -> Arc<T> {
        if let Some(value) = self.get(name)
            && let Some(shared) = value.downcast_ref::<Arc<T>>()
        {
            return Arc::clone(shared);
        }
        // Of another version of its crate, as a `:dep` brings it. What runs there goes on.
        if let Some(other) = self.variables.remove(name) {
            let number = self.variables.len();
            self.put(&format!("{name} {number}"), other);
        }
        let shared = Arc::new(create());
        self.put(name, Box::new(Arc::clone(&shared)));
        shared
    }

    #[inline(never)]
    fn put(&mut self, name: &str, value: Box<dyn Any>) {
        self.variables.insert(name.to_owned(), value);
    }

    #[inline(never)]
    fn get(&self, name: &str) -> Option<&dyn Any> {
        self.variables.get(name).map(|value| &**value)
    }

    #[inline(never)]
    fn check(&mut self, name: &str, wanted: TypeId) -> bool {
        let fits = self
            .variables
            .get(name)
            .is_none_or(|value| (**value).type_id() == wanted);
        if !fits && let Some(host) = host() {
            (host.type_changed)(Text::of(name));
        }
        fits
    }

    #[inline(never)]
    fn take(&mut self, name: &str, wanted: TypeId) -> Box<dyn Any> {
        match self.variables.get(name) {
            None => missing(name),
            Some(value) if (**value).type_id() != wanted => changed_type(name),
            Some(_) => self.variables.remove(name).unwrap_or_else(|| missing(name)),
        }
    }
}

#[cold]
#[inline(never)]
fn missing(name: &str) -> ! {
    panic!("variable `{name}` has gone missing")
}

#[cold]
#[inline(never)]
fn changed_type(name: &str) -> ! {
    panic!("variable `{name}` has changed its type")
}

static STORE: AtomicPtr<VariableStore> = AtomicPtr::new(std::ptr::null_mut());

/// Makes the store that a namespace's first cell gets; later cells are passed what the one before returned.
pub fn create_variable_store() -> *mut VariableStore {
    let store = Box::into_raw(Box::default());
    STORE.store(store, Ordering::SeqCst);
    store
}

/// As `std::panic::catch_unwind`. A closure that the compiler puts into that itself loses the lines of its code.
///
/// # Errors
/// Returns what the closure panicked with.
pub fn catch_unwind<F: FnOnce() -> R + std::panic::UnwindSafe, R>(
    closure: F,
) -> std::thread::Result<R> {
    #[inline(never)]
    fn call<F: FnOnce() -> R, R>(closure: F) -> R {
        closure()
    }
    std::panic::catch_unwind(|| call(closure))
}

/// Generated code calls this when user code unwound.
#[inline(never)]
pub fn panicked() {
    report_panic(
        "the message went to a panic hook of the cell, or the panic was resumed without one",
    );
}

fn report_panic(fallback: &str) {
    let panic = lock(&PENDING)
        .take()
        .or_else(|| BACKGROUND.try_lock().ok().and_then(|mut last| last.take()))
        // `resume_unwind` runs no hook.
        .unwrap_or_else(|| Panic {
            message: fallback.to_owned(),
            file: String::new(),
            line: 0,
            column: 0,
            addresses: Vec::new(),
        });
    if let Some(host) = host() {
        (host.panicked)(
            Text::of(&panic.message),
            Text::of(&panic.file),
            panic.line,
            panic.column,
            panic.addresses.as_ptr(),
            panic.addresses.len(),
        );
    }
}

/// Generated code calls this when `?` left the cell early; `text` is that error as the user wants to read it.
#[inline(never)]
pub fn error_returned(text: &str) {
    if let Some(host) = host() {
        (host.returned)(Text::of(text));
    }
}

/// The text of the cell's last expression.
#[inline(never)]
pub fn send_text_plain(text: &str) {
    if let Some(host) = host() {
        (host.result)(Text::of(text));
    }
}

/// Shows the value of a cell's last expression by its `{:?}` text; the unit value shows nothing. Generated code calls this
/// for a type without an `evcxr_display` of its own.
#[inline(never)]
pub fn display(value: &dyn Debug, type_name: &str) {
    if type_name != "()" {
        send_text_plain(&format!("{value:?}"));
    }
}

/// A panic that was seen by the hook, and about which nothing was shown yet.
struct Panic {
    message: String,
    file: String,
    line: u32,
    column: u32,
    addresses: Vec<usize>,
}

impl Panic {
    fn print(&self, thread: &str) {
        let Panic {
            message,
            file,
            line,
            column,
            ..
        } = self;
        let text = format!("\nthread '{thread}' panicked at {file}:{line}:{column}:\n{message}\n");
        // A closed stderr is no reason to panic within a panic.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// The last panic of the cell's thread. Whether the user catches it or the cell ends with it shows only later, by
/// `panicked()` being called or not.
static PENDING: Mutex<Option<Panic>> = Mutex::new(None);

/// The last panic of any other thread, for cells that resume it (as scoped pools do).
static BACKGROUND: Mutex<Option<Panic>> = Mutex::new(None);

thread_local! {
    static IS_CELL_THREAD: Cell<bool> = const { Cell::new(false) };
    static FORK_LOCKS: RefCell<Option<(StdoutLock<'static>, StderrLock<'static>)>> = const { RefCell::new(None) };
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn on_panic(info: &PanicHookInfo<'_>) {
    let message = info
        .payload_as_str()
        .map_or_else(|| "Box<dyn Any>".to_owned(), str::to_owned);
    let (file, line, column) = info.location().map_or_else(
        || (String::new(), 0, 0),
        |location| {
            (
                location.file().to_owned(),
                location.line(),
                location.column(),
            )
        },
    );
    let mut addresses = Vec::new();
    if let Some(host) = host() {
        addresses.resize(FRAMES, 0);
        let count = (host.trace)(addresses.as_mut_ptr(), addresses.len());
        addresses.truncate(count);
    }
    let panic = Panic {
        message,
        file,
        line,
        column,
        addresses,
    };
    if !IS_CELL_THREAD.try_with(Cell::get).unwrap_or(false) {
        let thread = std::thread::current();
        panic.print(thread.name().unwrap_or("<unnamed>"));
        match BACKGROUND.try_lock() {
            Ok(mut last) => *last = Some(panic),
            Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = Some(panic),
            Err(TryLockError::WouldBlock) => {}
        }
        return;
    }
    // std says this after a panic that reached the border of an `extern "C"` function or a second panic while unwinding, and aborts
    // next: the panic that led here would never be shown.
    let aborts = panic.message.starts_with("panic in a ");
    let earlier = lock(&PENDING).replace(panic);
    if let Some(earlier) = earlier {
        earlier.print("main");
    }
    if aborts && let Some(panic) = lock(&PENDING).take() {
        panic.print("main");
    }
}

/// UTF-8 that is borrowed for the length of one call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Text {
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
}

/// What the runtime offers. Every function may be called from any thread.
#[repr(C)]
#[derive(Debug)]
pub struct Host {
    /// The text of the cell's last expression.
    result: extern "C" fn(Text),
    /// Message, file, line, column, return addresses and their number.
    panicked: extern "C" fn(Text, Text, u32, u32, *const usize, usize),
    /// `?` left the cell with this error.
    returned: extern "C" fn(Text),
    /// The variable of this name has another type than the cell was compiled for.
    type_changed: extern "C" fn(Text),
    /// Writes the return addresses of this thread to a slice, given by pointer and length; gives their number.
    trace: extern "C" fn(*mut usize, usize) -> usize,
}

static HOST: OnceLock<&'static Host> = OnceLock::new();

fn host() -> Option<&'static Host> {
    HOST.get().copied()
}

/// The number of the C interface that this library was made for.
#[unsafe(no_mangle)]
pub extern "C" fn chorus_support_interface() -> u32 {
    INTERFACE
}

/// Called once, on the thread that will run the cells.
///
/// # Safety
/// `host` points to a table that lives as long as the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chorus_support_init(host: *const Host) {
    // SAFETY: the caller's promise.
    let _ = HOST.set(unsafe { &*host });
    IS_CELL_THREAD.with(|is| is.set(true));
    std::panic::set_hook(Box::new(on_panic));
}

/// Called after a closure that let its trampoline catch a panic, on the thread that runs the cells. `fallback` is the panic's message if
/// the hook has not seen it.
///
/// # Safety
/// `fallback` is UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chorus_support_panicked(fallback: Text) {
    let bytes = if fallback.pointer.is_null() {
        &[]
    } else {
        // SAFETY: the caller lends the text for the length of this call.
        unsafe { std::slice::from_raw_parts(fallback.pointer, fallback.length) }
    };
    match str::from_utf8(bytes) {
        Ok("") | Err(_) => panicked(),
        Ok(text) => report_panic(text),
    }
}

/// Called after a cell: shows a panic that the user caught, then flushes.
#[unsafe(no_mangle)]
pub extern "C" fn chorus_support_cell_end() {
    let caught = lock(&PENDING).take();
    if let Some(caught) = caught {
        caught.print("main");
    }
    if let Ok(mut last) = BACKGROUND.try_lock() {
        *last = None;
    }
    chorus_support_flush();
}

/// Writes out what libstd buffers.
#[unsafe(no_mangle)]
pub extern "C" fn chorus_support_flush() {
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
}

/// Takes the locks of stdout and stderr: a thread that held one at the moment of the fork would hold it for ever in the copy, where it
/// does not exist.
#[unsafe(no_mangle)]
pub extern "C" fn chorus_support_before_fork() {
    let mut locks = (std::io::stdout().lock(), std::io::stderr().lock());
    let _ = locks.0.flush();
    let _ = locks.1.flush();
    FORK_LOCKS.with(|held| *held.borrow_mut() = Some(locks));
}

/// Gives the locks back, in both processes.
#[unsafe(no_mangle)]
pub extern "C" fn chorus_support_after_fork() {
    let locks = FORK_LOCKS.with(|held| held.borrow_mut().take());
    drop(locks);
}

/// Called in a copy that took over: forgets what cannot live without its threads. Returns whether there was a tokio
/// runtime.
#[unsafe(no_mangle)]
pub extern "C" fn chorus_support_restored() -> bool {
    // SAFETY: the pointer is null or the store that this process's cells share, and no cell is running.
    let Some(store) = (unsafe { STORE.load(Ordering::SeqCst).as_mut() }) else {
        return false;
    };
    match store.variables.remove(TOKIO_RUNTIME) {
        Some(runtime) => {
            // Dropping it would wait for threads that are gone.
            std::mem::forget(runtime);
            true
        }
        None => false,
    }
}
