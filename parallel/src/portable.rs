//! What can travel between processes.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type whose values can be sent to an engine and back: it can be serialized, deserialized, may be made by any
/// thread, and borrows nothing.
///
/// Implemented for all such types. For a type of your own write
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Point { x: f64, y: f64 }
/// # fn portable<T: chorus::Portable>() {}
/// # portable::<Point>();
/// ```
///
/// Values travel in a compact format that has neither names of fields nor types, as the reader knows them. So what asks the data for its shape
/// (`serde_json::Value`; `#[serde(untagged)]`, `tag = ".."`, `flatten`) or leaves out fields that are read (`skip_serializing`, `skip_serializing_if`) can't
/// travel as it is: send its text, `serde_json::to_string(&value)?`.
///
/// A notebook has the crate `serde`. A program that doesn't depend on it writes `chorus::serde::Serialize` and the like, and
/// `#[serde(crate = "chorus::serde")]` above the type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't travel to an engine and back",
    label = "this value would have to be sent to another process",
    note = "if `{Self}` is a type of yours, or holds one, derive its serialization: \
            `#[derive(serde::Serialize, serde::Deserialize)]` (a notebook has the crate `serde`; a program needs it with its feature `derive`)",
    note = "if it borrows (`&str`, `&[T]`, a struct with a lifetime), send the owned value instead (`String`, `Vec<T>`)",
    note = "files, sockets, locks, threads and `Rc`s stay where they are: open or make them inside the closure"
)]
pub trait Portable: Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Portable for T {}
