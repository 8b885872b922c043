//! The whole crate from end to end, with a carrier whose engines are threads.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are no tests to the linter"
)]

mod carrier;
mod failures;
mod magics;
mod results;
mod views;

use carrier::Carrier;
use chorus::Client;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// So long a test waits for what must come.
const SOON: Duration = Duration::from_secs(20);

fn cluster(engines: u32) -> (Carrier, Client) {
    let carrier = Carrier::new(engines);
    let client = Client::from_stream(carrier.stream()).unwrap();
    (carrier, client)
}

/// Holds tasks until it is opened. Engines are threads, so a static will do.
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    const fn new() -> Gate {
        Gate {
            open: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    fn pass(&self) {
        let mut open = self.open.lock().unwrap();
        let deadline = Instant::now() + SOON;
        while !*open {
            assert!(Instant::now() < deadline, "the gate stayed shut");
            open = self.changed.wait_timeout(open, SOON).unwrap().0;
        }
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}
