//! Functions that run elsewhere: a closure without captures is a place in a shared object.
//!
//! rustc compiles, for each closure that is given to a view, a *trampoline*: a C function that decodes the arguments,
//! calls the closure and encodes what it returns. An engine that loads the same file finds the trampoline at the same distance from
//! its beginning. So `(file, offset)` is all that has to be sent.
//!
//! This works because a closure without captures has no size: there is nothing to send but its code. Plain functions and
//! generic ones are of size zero as well; function pointers are not, and are refused as captures are, while compiling.

mod caught;
mod kept;
mod trampoline;

pub use trampoline::{Answer, Slice, Trampoline};
pub(crate) use trampoline::{Mark, apply, apply_with, map, map_reduce, map_with};

use crate::error::Error;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a function's code is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The shared object or program that holds it.
    pub artifact: PathBuf,
    /// Whether it is this program.
    pub executable: bool,
    /// The distance of its trampoline from where the file is loaded, in bytes.
    pub offset: u64,
}

/// Refuses, while compiling, closures that hold something.
pub(crate) struct Code<F>(std::marker::PhantomData<F>);

impl<F> Code<F> {
    const EMPTY: () = assert!(
        size_of::<F>() == 0,
        "this closure captures variables, or is a function pointer, so it can't be sent to an engine. \
         Pass what it uses as an argument (`view.apply(|(a, b)| .., (a, b))`), or share it among all calls: \
         `view.map_with(&shared, items, |shared, item| ..)`. Functions, and closures that use only their arguments, can be sent."
    );

    const BODY_EMPTY: () = assert!(
        size_of::<F>() == 0,
        "the body of %%parallel uses variables of the notebook that it isn't given. It runs in other processes: \
         name them, `%%parallel --with NAME`. Functions, types and constants can be used as they are."
    );

    /// As [`take`](Code::take), for the body of a `%%parallel`.
    pub(crate) fn take_body(function: F) {
        const { Self::BODY_EMPTY };
        std::mem::forget(function);
    }

    /// Takes a function by value: who has one may call it for ever, since it holds nothing.
    pub(crate) fn take(function: F) {
        const { Self::EMPTY };
        std::mem::forget(function);
    }

    /// As [`get`](Code::get), for the body of a `%%parallel`: rustc evaluates each assertion that it meets, and one message is enough.
    ///
    /// # Safety
    /// [`take_body`](Code::take_body) has been called with an `F`, here or in the process that asks for the call.
    pub(crate) unsafe fn get_body<'a>() -> &'a F {
        const { Self::BODY_EMPTY };
        // SAFETY: as below.
        unsafe { NonNull::<F>::dangling().as_ref() }
    }

    /// The function.
    ///
    /// # Safety
    /// [`take`](Code::take) has been called with an `F`, here or in the process that asks for the call.
    pub(crate) unsafe fn get<'a>() -> &'a F {
        const { Self::EMPTY };
        // SAFETY: a value without size may be anywhere that is aligned, and the caller's promise is that one exists.
        unsafe { NonNull::<F>::dangling().as_ref() }
    }
}

/// Finds the file and offset of a trampoline. Asking for the same one again costs a look into a table.
///
/// # Errors
/// When the dynamic linker doesn't know the file, or it is gone.
pub(crate) fn locate(trampoline: Trampoline) -> Result<Arc<Place>, Error> {
    static FOUND: Mutex<Option<HashMap<usize, Arc<Place>>>> = Mutex::new(None);
    let address = trampoline as usize;
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let found = found.get_or_insert_default();
    if let Some(place) = found.get(&address) {
        return Ok(Arc::clone(place));
    }
    let place = Arc::new(find(address)?);
    found.insert(address, Arc::clone(&place));
    Ok(place)
}

fn find(address: usize) -> Result<Place, Error> {
    let unknown = || Error::Function {
        reason: "the dynamic linker doesn't know which file it is from".to_owned(),
    };
    let (name, base) = object(address).ok_or_else(unknown)?;
    // SAFETY: no arguments but a number.
    let program = object(unsafe { libc::getauxval(libc::AT_PHDR) } as usize);
    let executable = program.is_some_and(|(_, program)| program == base);
    let artifact = if executable {
        // The linker's name of a program is what it was called with, which may be relative to a folder that was left.
        std::env::current_exe()
    } else {
        std::fs::canonicalize(name)
    }
    .map_err(|error| Error::Function {
        reason: format!("its file can't be found: {error}"),
    })?;
    Ok(Place {
        artifact,
        executable,
        offset: (address - base) as u64,
    })
}

/// The name and the first address of the loaded file that holds an address.
fn object(address: usize) -> Option<(PathBuf, usize)> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `dladdr` takes any address and writes to the structure.
    let known = unsafe { libc::dladdr(address as *const c_void, info.as_mut_ptr()) } != 0;
    // SAFETY: zeroes are a value of this structure of pointers, whether it was written or not.
    let info = unsafe { info.assume_init() };
    if !known || info.dli_fname.is_null() || info.dli_fbase.is_null() {
        return None;
    }
    // SAFETY: the linker's own string, which lives as long as the file is loaded; cells are never unloaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some((
        OsStr::from_bytes(name.to_bytes()).into(),
        info.dli_fbase as usize,
    ))
}

#[cfg(test)]
mod tests;
