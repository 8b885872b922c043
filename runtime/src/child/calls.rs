//! Calls of closures: finds their code, lays out what they get, keeps what they share.

use std::collections::HashMap;
use std::ffi::{OsStr, c_int, c_void};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr::{null, null_mut};

use libloading::os::unix::Library;

use super::host;
use super::kept::{Held, Kept};
use crate::memory::Mapping;
use crate::wire::{CallEnd, Place, Request};

/// A piece as the trampoline sees it. The layout is fixed: see `call.rs`.
#[repr(C)]
#[derive(Debug)]
struct Slice {
    data: *const u8,
    len: usize,
    id: u64,
}

/// What the trampoline gives back. The layout is fixed: see `call.rs`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Answer {
    status: u32,
    data: *mut u8,
    len: usize,
    capacity: usize,
    drop: Option<unsafe extern "C" fn(*mut u8, usize, usize)>,
}

type Trampoline = unsafe extern "C" fn(*const Slice, usize, *mut Answer);

/// Not a status: the trampoline has set none.
const UNSET: u32 = u32::MAX;

/// How a trampoline says that it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Returned,
    /// Some of it.
    Partly,
    Failed,
    Panicked,
    /// None that there is.
    Unknown(u32),
}

impl Answer {
    pub(super) fn status(&self) -> Status {
        match self.status {
            0 => Status::Returned,
            1 => Status::Failed,
            2 => Status::Panicked,
            3 => Status::Partly,
            other => Status::Unknown(other),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: the trampoline gives pointer and length of bytes that are its until `drop` is called.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: called once, with what the trampoline gave along with it.
            unsafe { drop(self.data, self.len, self.capacity) };
        }
    }
}

/// What a worker has of the calls before.
#[derive(Debug)]
pub(super) struct Calls {
    code: HashMap<Vec<u8>, Code>,
    kept: Kept,
    /// Where pieces are put that come in packets.
    arena: Vec<u128>,
}

/// What is brought along for the length of one call.
#[derive(Debug)]
enum Source {
    /// Bytes of the arena, in elements.
    Arena {
        start: usize,
        length: usize,
    },
    Mapped(Mapping),
    Kept(u64),
}

impl Calls {
    /// `limit`: how many bytes are kept for later calls.
    pub(super) fn new(limit: u64) -> Calls {
        Calls {
            code: HashMap::new(),
            kept: Kept::new(limit),
            arena: Vec::new(),
        }
    }

    /// Calls a closure. The error is one of those where nothing was called.
    pub(super) fn call(
        &mut self,
        request: &Request,
        inline: &[u8],
        memory: Option<&OwnedFd>,
    ) -> Result<Answer, CallEnd> {
        let not_run = |error| CallEnd::NotRun { error };
        let function = self
            .function(&request.artifact, request.offset)
            .map_err(not_run)?;
        let sources = self.bring(request, inline, memory).map_err(not_run)?;
        let slices = self.slices(request, &sources)?;
        let mut answer = Answer {
            status: UNSET,
            data: null_mut(),
            len: 0,
            capacity: 0,
            drop: None,
        };
        // SAFETY: the owner says that there is a trampoline at this place, which lies in code. The slices and what they point to live
        // until it returns.
        unsafe { function(slices.as_ptr(), slices.len(), &raw mut answer) };
        Ok(answer)
    }

    /// Has code be loaded again.
    pub(super) fn forget_code(&mut self) {
        self.code.clear();
    }

    fn function(&mut self, artifact: &[u8], offset: u64) -> Result<Trampoline, String> {
        let code = match self.code.get(artifact) {
            Some(code) => code,
            None => {
                let code = Code::load(OsStr::from_bytes(artifact))?;
                self.code.entry(artifact.to_vec()).or_insert(code)
            }
        };
        let offset = usize::try_from(offset)
            .ok()
            .filter(|offset| code.executable.iter().any(|range| range.contains(offset)));
        let offset = offset.ok_or_else(|| {
            let path = String::from_utf8_lossy(artifact);
            format!("{path} has no code there: it is not the object that the closure is in")
        })?;
        // SAFETY: the address of code; the owner says of which type.
        Ok(unsafe { std::mem::transmute::<usize, Trampoline>(code.base + offset) })
    }

    /// Puts everything in its place.
    fn bring(
        &mut self,
        request: &Request,
        inline: &[u8],
        memory: Option<&OwnedFd>,
    ) -> Result<Vec<Source>, String> {
        self.arena.clear();
        let mut rest = inline;
        let mut sources = Vec::with_capacity(request.pieces.len());
        for piece in &request.pieces {
            let mut mapping = None;
            let mut bytes: &[u8] = &[];
            match &piece.place {
                Place::Inline { length } => {
                    let length = usize::try_from(*length).unwrap_or(usize::MAX);
                    let split = rest.split_at_checked(length);
                    (bytes, rest) = split.ok_or("a piece of the call is cut off")?;
                }
                // What is there already is not looked at.
                _ if self.kept.has(piece.id) => {}
                Place::Memory { start, length } => {
                    let memory = memory.ok_or("the call came without its memory")?;
                    let mapped = Mapping::of_sealed(memory, *start, *length);
                    mapping = Some(mapped.map_err(|error| {
                        format!("the memory that came with the call cannot be mapped: {error}")
                    })?);
                }
                Place::File {
                    path,
                    start,
                    length,
                } => {
                    let mapped = Mapping::of_file(OsStr::from_bytes(path), *start, *length);
                    mapping = Some(mapped.map_err(|error| {
                        let path = String::from_utf8_lossy(path);
                        format!("the shared file {path} cannot be mapped: {error}")
                    })?);
                }
                Place::Kept => {}
            }
            sources.push(match (piece.id, mapping) {
                (0, Some(mapping)) => Source::Mapped(mapping),
                (0, None) => {
                    let (start, length) = (self.arena.len(), bytes.len());
                    append(&mut self.arena, bytes);
                    Source::Arena { start, length }
                }
                (id, mapping) => {
                    if matches!(piece.place, Place::Inline { .. }) && !self.kept.has(id) {
                        let mut copy = Vec::new();
                        append(&mut copy, bytes);
                        self.kept.keep(id, Held::Copied(copy, bytes.len()));
                    } else if let Some(mapping) = mapping {
                        self.kept.keep(id, Held::Mapped(mapping));
                    }
                    Source::Kept(id)
                }
            });
        }
        let ids: Vec<u64> = request.pieces.iter().map(|piece| piece.id).collect();
        self.kept.evict(&ids);
        Ok(sources)
    }

    /// As the trampoline gets them. Pointers are into the arena, `sources` and what is kept: none of them may change meanwhile.
    fn slices(&mut self, request: &Request, sources: &[Source]) -> Result<Vec<Slice>, CallEnd> {
        let mut missing = Vec::new();
        let mut slices = Vec::with_capacity(sources.len());
        for (piece, source) in request.pieces.iter().zip(sources) {
            let (data, len) = match source {
                Source::Arena { start, length } => {
                    let first = self.arena.get(*start..).map_or(null(), <[u128]>::as_ptr);
                    (first.cast(), *length)
                }
                Source::Mapped(mapping) => {
                    let bytes = mapping.as_ref();
                    (bytes.as_ptr(), bytes.len())
                }
                Source::Kept(id) => match self.kept.get(*id) {
                    Some(bytes) => (bytes.as_ptr(), bytes.len()),
                    None => {
                        missing.push(*id);
                        continue;
                    }
                },
            };
            let id = piece.id;
            slices.push(Slice { data, len, id });
        }
        if missing.is_empty() {
            Ok(slices)
        } else {
            Err(CallEnd::Missing { ids: missing })
        }
    }
}

/// Adds bytes at the next multiple of 16.
fn append(arena: &mut Vec<u128>, bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<{ size_of::<u128>() }>();
    arena.extend(whole.iter().map(|chunk| u128::from_ne_bytes(*chunk)));
    if !rest.is_empty() {
        let mut last = [0; size_of::<u128>()];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        arena.push(u128::from_ne_bytes(last));
    }
}

/// A loaded artifact.
#[derive(Debug)]
struct Code {
    base: usize,
    /// Offsets from the base.
    executable: Vec<Range<usize>>,
}

/// The start of the dynamic linker's `struct link_map`, which is all of it that is public.
#[repr(C)]
struct LinkMap {
    address: usize,
}

impl Code {
    /// Loads an artifact for ever. On failure the dynamic linker's words.
    fn load(path: &OsStr) -> Result<Code, String> {
        let handle = if is_this_program(path) {
            // The dynamic linker refuses to load a program; it is there already.
            Library::this()
        } else {
            std::mem::ManuallyDrop::into_inner(host::load(path)?)
        }
        .into_raw();
        let mut map: *const LinkMap = null();
        // SAFETY: the handle is open, and this request writes one pointer.
        let asked = unsafe {
            libc::dlinfo(
                handle,
                libc::RTLD_DI_LINKMAP,
                (&raw mut map).cast::<c_void>(),
            )
        };
        // SAFETY: on success the pointer is to the object's map, which lives as long as the object: for ever.
        let base = match unsafe { map.as_ref() } {
            Some(map) if asked == 0 => map.address,
            _ => return Err("the dynamic linker does not tell where it is loaded".to_owned()),
        };
        let mut code = Code {
            base,
            executable: Vec::new(),
        };
        // SAFETY: the callback gets the pointer that it expects.
        unsafe { libc::dl_iterate_phdr(Some(note_code), (&raw mut code).cast()) };
        Ok(code)
    }
}

/// Whether the file is what this process runs.
fn is_this_program(path: &OsStr) -> bool {
    let file = |path: &Path| std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let program = file(Path::new("/proc/self/exe"));
    program.is_some() && program == file(Path::new(path))
}

/// Called for every loaded object; `code` is a [`Code`].
unsafe extern "C" fn note_code(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    code: *mut c_void,
) -> c_int {
    // SAFETY: the dynamic linker passes a valid structure, and `load` a `Code` that nothing else uses now.
    let (info, code) = unsafe { (&*info, &mut *code.cast::<Code>()) };
    if info.dlpi_addr as usize != code.base {
        return 0;
    }
    // SAFETY: the dynamic linker's own table.
    let segments =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let executable = segments
        .iter()
        .filter(|segment| segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_X != 0)
        .map(|segment| {
            let start = segment.p_vaddr as usize;
            start..start + segment.p_memsz as usize
        });
    code.executable.extend(executable);
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Piece;

    fn piece(id: u64, length: u64) -> Piece {
        let place = Place::Inline { length };
        Piece { id, place }
    }

    #[test]
    fn pieces_are_laid_out_in_order_and_aligned() {
        let mut calls = Calls::new(1000);
        let request = Request {
            artifact: Vec::new(),
            offset: 0,
            pieces: vec![piece(0, 17), piece(9, 3), piece(0, 0), piece(0, 2)],
            answer_file: None,
        };
        let inline: Vec<u8> = (0..22).collect();
        let sources = calls.bring(&request, &inline, None).unwrap();
        let slices = calls.slices(&request, &sources).unwrap();
        let lengths: Vec<_> = slices.iter().map(|slice| (slice.len, slice.id)).collect();
        assert_eq!(lengths, [(17, 0), (3, 9), (0, 0), (2, 0)]);
        let mut all: Vec<u8> = Vec::new();
        for slice in &slices {
            assert_eq!(slice.data.addr() % 16, 0);
            // SAFETY: points to as many bytes, as the trampoline would read them.
            all.extend(unsafe { std::slice::from_raw_parts(slice.data, slice.len) });
        }
        assert_eq!(all, inline);
        assert!(calls.bring(&request, &inline[..21], None).is_err());
    }

    #[test]
    fn what_is_not_kept_is_named() {
        let mut calls = Calls::new(1000);
        let kept = |id| Piece {
            id,
            place: Place::Kept,
        };
        let request = Request {
            artifact: Vec::new(),
            offset: 0,
            pieces: vec![kept(5), piece(6, 1), kept(7)],
            answer_file: None,
        };
        for missing in [vec![5, 7], vec![5, 7]] {
            let sources = calls.bring(&request, b"x", None).unwrap();
            let slices = calls.slices(&request, &sources).unwrap_err();
            assert_eq!(slices, CallEnd::Missing { ids: missing });
        }
        assert!(calls.kept.has(6));
    }

    #[test]
    fn code_is_found_in_a_loaded_object() {
        // Whatever has `malloc` is loaded already.
        let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        let malloc = libc::malloc as *const () as usize;
        // SAFETY: `info` is valid for writes and zeroed.
        let (name, base) = unsafe {
            libc::dladdr(malloc as *const c_void, info.as_mut_ptr());
            let info = info.assume_init();
            let name = std::ffi::CStr::from_ptr(info.dli_fname);
            (name.to_bytes().to_vec(), info.dli_fbase as usize)
        };
        let mut calls = Calls::new(0);
        let offset = malloc - base;
        assert!(calls.function(&name, offset as u64).is_ok());
        for wrong in [0, u64::MAX, 1 << 40] {
            let error = calls.function(&name, wrong).unwrap_err();
            assert!(error.contains("no code there"), "{error}");
        }
        assert!(calls.function(b"/nowhere/x.so", 0).is_err());
    }
}
