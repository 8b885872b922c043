//! Makes `std::io::stdin()` of user code ask the owner for a line.
//!
//! Descriptor 0 itself is `/dev/null`, so that whatever reads it by other means (C code, child processes) meets the end of input at once
//! and never hangs. libstd reaches `read` through one slot of its global offset table; that slot is pointed at a function here. If the
//! slot is not found, standard input is empty and everything else works.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::channel::Channel;
use super::host::{self, Reporter, Support};
use super::system;
use crate::wire::{Answer, FromWorker};

/// What reading needs.
#[derive(Debug)]
struct Stdin {
    reporter: &'static Mutex<Reporter>,
    support: &'static Support,
    /// Replaced in a copy that took over: a thread that is no more may have held the lock.
    reader: AtomicPtr<Mutex<Reader>>,
    /// The worker; a process that user code forked off by itself has no owner to ask.
    worker: AtomicI32,
}

#[derive(Debug)]
struct Reader {
    answers: Channel,
    /// What the last answer has left, next byte last.
    left: Vec<u8>,
}

static STDIN: OnceLock<Stdin> = OnceLock::new();

/// Puts the function in place. `answers` is the owner's input socket.
pub(super) fn install(
    answers: Channel,
    reporter: &'static Mutex<Reporter>,
    support: &'static Support,
) {
    STDIN.get_or_init(|| Stdin {
        reporter,
        support,
        reader: AtomicPtr::new(new_reader(answers)),
        worker: AtomicI32::new(system::own_pid()),
    });
    // SAFETY: called on the only thread, after libstd was loaded and before any of its code reads.
    unsafe { libc::dl_iterate_phdr(Some(patch_libstd), std::ptr::null_mut()) };
}

fn new_reader(mut answers: Channel) -> *mut Mutex<Reader> {
    answers.discard();
    Box::into_raw(Box::new(Mutex::new(Reader {
        answers,
        left: Vec::new(),
    })))
}

/// In a copy that took over: forgets what the dead worker was waiting for.
pub(super) fn take_over(answers: Channel) {
    if let Some(stdin) = STDIN.get() {
        stdin.worker.store(system::own_pid(), Ordering::SeqCst);
        stdin.reader.store(new_reader(answers), Ordering::SeqCst);
    }
}

/// Stands in for libstd's `read`.
extern "C" fn read(fd: i32, buffer: *mut c_void, count: usize) -> isize {
    if fd == 0
        && count > 0
        && let Some(stdin) = STDIN.get()
        && stdin.worker.load(Ordering::Relaxed) == system::own_pid()
        && is_dev_null(fd)
    {
        // SAFETY: the caller of `read` promises that many bytes; they may be uninitialised, so they are filled first.
        let buffer = unsafe {
            std::ptr::write_bytes(buffer.cast::<u8>(), 0, count);
            std::slice::from_raw_parts_mut(buffer.cast::<u8>(), count)
        };
        return isize::try_from(stdin.read(buffer)).unwrap_or(0);
    }
    // SAFETY: as the caller promised.
    unsafe { libc::read(fd, buffer, count) }
}

/// User code may have put something else in descriptor 0's place.
fn is_dev_null(fd: i32) -> bool {
    // SAFETY: a zeroed `stat` is a valid one; it is written to a local.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut stat) == 0
            && stat.st_mode & libc::S_IFMT == libc::S_IFCHR
            && stat.st_rdev == libc::makedev(1, 3)
    }
}

impl Stdin {
    /// Fills the start of `buffer`; 0 is the end of input.
    fn read(&self, buffer: &mut [u8]) -> usize {
        // SAFETY: never freed.
        let reader = unsafe { &*self.reader.load(Ordering::SeqCst) };
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.left.is_empty() {
            // The question may still be in a buffer.
            self.support.flush();
            let Some(mut line) = self.ask(&mut reader.answers) else {
                return 0;
            };
            line.push('\n');
            reader.left = line.into_bytes();
            reader.left.reverse();
        }
        let mut filled = 0;
        for slot in buffer {
            match reader.left.pop() {
                Some(byte) => *slot = byte,
                None => break,
            }
            filled += 1;
        }
        filled
    }

    fn ask(&self, answers: &mut Channel) -> Option<String> {
        let request = now();
        host::lock(self.reporter).send(&FromWorker::InputWanted { request });
        loop {
            let answer: Answer = answers.receive().ok()??.message;
            if answer.request == request {
                return answer.line;
            }
        }
    }
}

/// Names a request: a counter would start again in a copy that takes over.
fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: written to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(target_arch = "x86_64")]
const SYMBOL_SLOTS: [u32; 2] = [6, 7]; // R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT
#[cfg(target_arch = "aarch64")]
const SYMBOL_SLOTS: [u32; 2] = [1025, 1026]; // R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT

/// Called for every loaded object.
unsafe extern "C" fn patch_libstd(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> i32 {
    // SAFETY: the dynamic linker passes a valid structure.
    let info = unsafe { &*info };
    // SAFETY: a NUL-terminated string or null.
    let name = (!info.dlpi_name.is_null()).then(|| unsafe { CStr::from_ptr(info.dlpi_name) });
    let is_libstd = name.is_some_and(|name| {
        name.to_str().is_ok_and(|name| {
            name.rsplit('/')
                .next()
                .unwrap_or(name)
                .starts_with("libstd-")
        })
    });
    if is_libstd {
        // SAFETY: the object is loaded and stays so.
        unsafe { patch(info) };
        return 1;
    }
    0
}

/// An entry of the dynamic section.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: u64,
}

/// A relocation with addend.
#[repr(C)]
struct Relocation {
    offset: u64,
    info: u64,
    _addend: i64,
}

/// The tables that name the symbols an object imports; addresses.
#[derive(Default)]
struct Tables {
    symbols: usize,
    strings: usize,
    relocations: [(usize, usize); 2],
}

/// Points the slots of `read` at ours.
///
/// # Safety
/// `info` describes a loaded object.
unsafe fn patch(info: &libc::dl_phdr_info) {
    let base = info.dlpi_addr as usize;
    // SAFETY: the dynamic linker's own table.
    let segments =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let find = |kind| segments.iter().find(|segment| segment.p_type == kind);
    let Some(dynamic) = find(libc::PT_DYNAMIC) else {
        return;
    };
    let relro = find(libc::PT_GNU_RELRO).map(|segment| {
        base + segment.p_vaddr as usize..base + (segment.p_vaddr + segment.p_memsz) as usize
    });
    // SAFETY: the segment is mapped at this address, and the section ends with a zero tag.
    let tables = unsafe { tables(base, (base + dynamic.p_vaddr as usize) as *const Dynamic) };
    for (start, bytes) in tables.relocations {
        for index in 0..bytes / size_of::<Relocation>() {
            // SAFETY: within the table, whose size the dynamic section gives.
            let relocation = unsafe { &*(start as *const Relocation).add(index) };
            if !SYMBOL_SLOTS.contains(&(relocation.info as u32)) {
                continue;
            }
            // SAFETY: the relocation's symbol is in the symbol table, its name in the string table.
            let name = unsafe {
                let symbol = &*(tables.symbols as *const libc::Elf64_Sym)
                    .add((relocation.info >> 32) as usize);
                CStr::from_ptr((tables.strings + symbol.st_name as usize) as *const c_char)
            };
            if name == c"read" {
                let slot = base + relocation.offset as usize;
                let read_only = relro.as_ref().is_some_and(|relro| relro.contains(&slot));
                // SAFETY: a slot of the table, which holds the address of a function of this type.
                unsafe { write_slot(slot, read_only) };
            }
        }
    }
}

/// # Safety
/// `dynamic` is a dynamic section of the object loaded at `base`.
unsafe fn tables(base: usize, mut dynamic: *const Dynamic) -> Tables {
    // glibc has made addresses of the offsets in here, other linkers have not.
    let address = |value: u64| match value as usize {
        value if value < base => value + base,
        value => value,
    };
    let mut tables = Tables::default();
    let [all, plt] = &mut tables.relocations;
    loop {
        // SAFETY: the section ends with a zero tag.
        let entry = unsafe { &*dynamic };
        match entry.tag {
            0 => return tables,
            2 => plt.1 = entry.value as usize, // DT_PLTRELSZ
            5 => tables.strings = address(entry.value), // DT_STRTAB
            6 => tables.symbols = address(entry.value), // DT_SYMTAB
            7 => all.0 = address(entry.value), // DT_RELA
            8 => all.1 = entry.value as usize, // DT_RELASZ
            23 => plt.0 = address(entry.value), // DT_JMPREL
            _ => {}
        }
        // SAFETY: not the last one.
        dynamic = unsafe { dynamic.add(1) };
    }
}

/// # Safety
/// `slot` holds the address of a function with `read`'s signature.
unsafe fn write_slot(slot: usize, read_only: bool) {
    // SAFETY: the pages are those of the slot; writing a pointer is atomic here.
    unsafe {
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
        let start = (slot & !(page - 1)) as *mut c_void;
        if read_only && libc::mprotect(start, page, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return;
        }
        (*(slot as *mut AtomicPtr<c_void>)).store(read as *mut c_void, Ordering::SeqCst);
        if read_only {
            libc::mprotect(start, page, libc::PROT_READ);
        }
    }
}
