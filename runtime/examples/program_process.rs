//! Plays a program whose closures run in its own executable: both of its lives, for the tests.

#![expect(
    missing_debug_implementations,
    clippy::panic,
    reason = "what the crate `chorus` makes of closures, by hand"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use bytes::Bytes;
use runtime::{Call, CallOutcome, Config, Data, Event, Piece, RunId, Runtime};

#[repr(C)]
pub struct Slice {
    data: *const u8,
    len: usize,
    id: u64,
}

#[repr(C)]
pub struct Answer {
    status: u32,
    data: *mut u8,
    len: usize,
    capacity: usize,
    drop: Option<unsafe extern "C" fn(*mut u8, usize, usize)>,
}

type Trampoline = unsafe extern "C" fn(*const Slice, usize, *mut Answer);

unsafe extern "C" fn release(data: *mut u8, len: usize, capacity: usize) {
    // SAFETY: `double` took these from a vector.
    drop(unsafe { Vec::from_raw_parts(data, len, capacity) });
}

/// Says its input twice; panics if there is none.
unsafe extern "C" fn double(pieces: *const Slice, _: usize, answer: *mut Answer) {
    // SAFETY: the runtime passes one piece that can be read.
    let input = unsafe { std::slice::from_raw_parts((*pieces).data, (*pieces).len) };
    let doubled = catch_unwind(AssertUnwindSafe(|| {
        if input == b"panic" {
            panic!("as asked");
        }
        println!("doubling");
        [input, input].concat()
    }));
    let status = if doubled.is_ok() { 0 } else { 2 };
    let mut bytes = std::mem::ManuallyDrop::new(doubled.unwrap_or_default());
    // SAFETY: there is room for an answer.
    unsafe {
        answer.write(Answer {
            status,
            data: bytes.as_mut_ptr(),
            len: bytes.len(),
            capacity: bytes.capacity(),
            drop: Some(release),
        });
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("runtime") {
        runtime::child_main();
    }
    let program = std::env::current_exe()?;
    let mut command = Command::new(&program);
    command.arg("runtime");
    let tokio = tokio::runtime::Runtime::new()?;
    tokio.block_on(async {
        let (runtime, mut events) = Runtime::start(Config::of_program(command)).await?;
        let trampoline: Trampoline = double;
        for (id, input) in ["abc", "panic", "de"].into_iter().enumerate() {
            runtime.call(&Call {
                id: RunId(id as u64),
                artifact: program.clone(),
                offset: (trampoline as usize - base()) as u64,
                pieces: vec![Piece::Once(Data::Bytes(Bytes::from_static(
                    input.as_bytes(),
                )))],
                answer_file: None,
            });
        }
        while let Some(event) = events.recv().await {
            match event {
                Event::Output { bytes, .. } => print!("{}", String::from_utf8_lossy(&bytes)),
                Event::Called { id, outcome, .. } => {
                    match outcome {
                        CallOutcome::Returned(value) => println!("{value:?}"),
                        CallOutcome::Panicked(panic) => {
                            let at = panic.location.map(|location| location.file);
                            println!("panicked: {} in {at:?}", panic.message);
                        }
                        other => println!("{other:?}"),
                    }
                    if id == RunId(2) {
                        break;
                    }
                }
                other => println!("{other:?}"),
            }
        }
        runtime.shutdown().await;
        Ok(())
    })
}

/// Where this program is loaded.
fn base() -> usize {
    // SAFETY: zeroes are a value of this structure of pointers.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for, and the structure can be written.
    unsafe { libc::dladdr(base as *const () as *const libc::c_void, &raw mut info) };
    info.dli_fbase as usize
}
