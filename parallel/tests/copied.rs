//! A namespace that goes on in a copy, as after a cell that died: the copy connects anew and misses nothing.
//!
//! This program plays both: without arguments of its own it is the carrier, and it starts itself as the program with cells.

#![allow(clippy::unwrap_used, reason = "a test without the harness")]

#[path = "api/carrier.rs"]
mod carrier;

use carrier::Carrier;
use chorus::{AsyncResult, Client};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};

static FORKED: Gate = Gate::new();
static RESUMED: Gate = Gate::new();

/// Closed at first. The carrier's process has the gates, where closures are called.
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    const fn new() -> Gate {
        Gate {
            is_open: Mutex::new(false),
            opened: Condvar::new(),
        }
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(
            self.opened
                .wait_while(is_open, |is_open| !*is_open)
                .unwrap(),
        );
    }
}

fn main() {
    if std::env::var_os("CHORUS_CARRIER").is_some() {
        return cells();
    }
    // One engine for each task that waits at a gate, and one more.
    let carrier = Carrier::new(6);
    let path = std::env::temp_dir().join(format!("chorus-copied-{}", std::process::id()));
    carrier.listen(&path);
    let mut program = Command::new(std::env::current_exe().unwrap())
        .env("CHORUS_CARRIER", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = program.stdout.take().unwrap();
    let mut text = String::new();
    // The first line comes when the copy has connected.
    let mut first = [0; 8];
    output.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"resumed\n");
    RESUMED.open();
    output.read_to_string(&mut text).unwrap();
    // The one that died; the copy has closed its output.
    assert!(!program.wait().unwrap().success());
    std::fs::remove_file(&path).unwrap();

    let hellos = carrier.hellos();
    assert_eq!(hellos.len(), 2);
    let resume = hellos[1].resume.clone().unwrap();
    assert_eq!(resume.session, "test");
    // Of the map's six tasks the copy had two; the one that is held is open too.
    assert_eq!(resume.open.iter().map(|span| span.count).sum::<u64>(), 5);
    assert_eq!(text, "map [0, 10, 20, 30, 40, 50]\nheld 7\nnew 9\n");
    println!("a copy goes on ... ok");
}

fn cells() {
    let client = Client::connect().unwrap();
    let view = client.load_balanced_view().chunk_size(1);
    let map: AsyncResult<Vec<u32>> = view.map(0..6u32, |x| {
        // The copy is to have two results and no more.
        if x >= 2 {
            FORKED.pass();
        }
        x * 10
    });
    let two: Vec<u32> = map.iter().take(2).map(Result::unwrap).collect();
    assert_eq!(two, [0, 10]);
    let held = client.load_balanced_view().apply(
        |x: u8| {
            RESUMED.pass();
            x
        },
        7,
    );

    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are owned by nobody else.
    let [read, write] = unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        ends.map(|end| OwnedFd::from_raw_fd(end))
    };
    // SAFETY: there are no other threads.
    if unsafe { libc::fork() } != 0 {
        // The process that runs the cell takes results that the copy lacks, uses new numbers, and dies.
        view.apply_sync(|()| FORKED.open(), ()).unwrap();
        assert_eq!(map.get().unwrap().len(), 6);
        assert_eq!(view.apply_sync(|x: u8| x, 1).unwrap(), 1);
        std::process::abort();
    }
    drop(write);
    // Ends when the other process has.
    std::fs::File::from(read)
        .read_to_end(&mut Vec::new())
        .unwrap();
    assert!(!held.ready());
    println!("resumed");
    println!("map {:?}", map.get().unwrap());
    println!("held {}", held.get().unwrap());
    println!("new {}", view.apply_sync(|x: u8| x, 9).unwrap());
}
