//! Which functions of the user's a panic went through.
//!
//! Addresses are taken when the panic is raised and named later, here and not by libstd's `Backtrace` or the `backtrace` crate: both list
//! the loaded objects once, and know nothing of the artifacts that come after their first use.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use addr2line::{Loader, demangle_auto};

use crate::event::{Frame, Location};

/// Paths of the user's own items begin with the name of the crate that cells are compiled as.
const USER_CRATE: &str = "ctx::";

/// Writes the return addresses of the current thread to `addresses`, innermost first; gives their number. Of a deeper stack those in its middle are
/// left out, as the outermost ones say what a cell called.
pub(super) fn trace(addresses: &mut [usize]) -> usize {
    let inner = addresses.len() / 2;
    let outer = addresses.len() - inner;
    let mut count = 0;
    backtrace::trace(|frame| {
        let index = match count < addresses.len() {
            true => count,
            false => inner + (count - inner) % outer.max(1),
        };
        if let Some(address) = addresses.get_mut(index) {
            *address = frame.ip() as usize;
        }
        count += 1;
        !addresses.is_empty()
    });
    if count > addresses.len() {
        addresses[inner..].rotate_left((count - inner) % outer);
    }
    count.min(addresses.len())
}

/// The user's own functions among these addresses, those that were inlined included.
pub(super) fn user_frames(addresses: &[usize]) -> Vec<Frame> {
    let own = object_of(trace as *const () as usize).map(|object| object.base);
    let mut loaders: HashMap<usize, Option<Loader>> = HashMap::new();
    let mut frames = Vec::new();
    for address in addresses {
        // A return address is behind the call, which may be the last of its function.
        let call = address.saturating_sub(1);
        let Some(object) = object_of(call).filter(|object| Some(object.base) != own) else {
            continue;
        };
        let loader = loaders
            .entry(object.base)
            .or_insert_with(|| Loader::new(&object.path).ok());
        if let Some(loader) = loader {
            // Shared objects are linked at address 0.
            let found = frames_at(loader, (call - object.base) as u64);
            frames.extend(found.into_iter().filter(is_users));
        }
    }
    frames
}

/// A loaded object.
struct Object {
    path: PathBuf,
    base: usize,
}

fn object_of(address: usize) -> Option<Object> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is valid for writes; any address may be asked for.
    let found = unsafe { libc::dladdr(address as *const c_void, info.as_mut_ptr()) };
    if found == 0 {
        return None;
    }
    // SAFETY: zeroed at first, and `dladdr` has filled it.
    let info = unsafe { info.assume_init() };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name of a loaded object, which is never unloaded here.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(Object {
        path: PathBuf::from(OsStr::from_bytes(path.to_bytes())),
        base: info.dli_fbase as usize,
    })
}

/// The functions at one address, the inlined ones first.
fn frames_at(loader: &Loader, address: u64) -> Vec<Frame> {
    let symbol = loader
        .find_symbol(address)
        .map(|name| demangle_auto(Cow::Borrowed(name), None).into_owned());
    let mut frames = Vec::new();
    if let Ok(mut found) = loader.find_frames(address) {
        while let Ok(Some(frame)) = found.next() {
            let name = frame
                .function
                .as_ref()
                .and_then(|function| Some(function.demangle().ok()?.into_owned()));
            let location = frame.location.and_then(|location| {
                Some(Location {
                    file: location.file?.to_owned(),
                    line: location.line?,
                    column: location.column.unwrap_or(0),
                })
            });
            frames.push(Frame {
                function: name.unwrap_or_default(),
                location,
            });
        }
    }
    match (frames.last_mut(), symbol) {
        // The symbol has the function's path, which debug information may lack.
        (Some(outermost), Some(symbol)) => outermost.function = symbol,
        (None, Some(function)) => frames.push(Frame {
            function,
            location: None,
        }),
        (_, None) => {}
    }
    for frame in &mut frames {
        // The hash that tells instances apart says nothing to a reader.
        if let Some((name, hash)) = frame.function.rsplit_once("::h")
            && hash.len() == 16
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            frame.function = name.to_owned();
        }
    }
    frames
}

/// A function that was inlined has no path in its name, but a place: cells are called `chorus-<number>/lib.rs`.
fn is_users(frame: &Frame) -> bool {
    let own = frame.function.trim_start_matches('<');
    own.starts_with(USER_CRATE)
        || frame.location.as_ref().is_some_and(|location| {
            let mut parts = location.file.rsplit('/');
            parts.next() == Some("lib.rs")
                && parts.next().is_some_and(|folder| {
                    folder
                        .strip_prefix("chorus-")
                        .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_are_known_by_path_or_by_place() {
        let frame = |function: &str, file: Option<&str>| Frame {
            function: function.to_owned(),
            location: file.map(|file| Location {
                file: file.to_owned(),
                line: 1,
                column: 1,
            }),
        };
        for (function, file, users) in [
            ("ctx::f", None, true),
            ("<ctx::S as ctx::T>::f", None, true),
            ("f", Some("/tmp/chorus-session-x/chorus-12/lib.rs"), true),
            ("f", Some("/tmp/chorus-session-x/src/lib.rs"), false),
            (
                "core::panicking::panic",
                Some("/rustc/x/core/src/panicking.rs"),
                false,
            ),
            ("f", None, false),
        ] {
            assert_eq!(
                is_users(&frame(function, file)),
                users,
                "{function} {file:?}"
            );
        }
    }

    #[test]
    fn a_trace_fits_its_room() {
        let mut all = [0; 64];
        let count = trace(&mut all);
        assert!(count > 3);
        assert_eq!(trace(&mut [0; 3]), 3);
    }
}
