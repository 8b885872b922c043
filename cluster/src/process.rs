//! What the processes of a cluster have in common: how they begin, what tells them to end, what they say to who started them.
//!
//! A process prints one line of JSON to standard output when it is ready, or when it cannot be: `{"ready": ..}` or
//! `{"error": ".."}`. Whoever started it reads that instead of asking again and again.

use std::io::{Read, Write};

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Error;

/// Says once that a process is ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announce;

impl Announce {
    /// Prints the line. That nobody reads it is no failure.
    pub(crate) fn ready(self, about: &Value) {
        print_line(&json!({ "ready": about }));
    }
}

fn print_line(line: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Runs a process until it ends by itself or its `stop` resolves: on SIGTERM, SIGINT, SIGHUP, and when it is `tied`, when its
/// standard input is closed.
pub(crate) fn run<F: Future<Output = Result<(), Error>>>(
    tied: bool,
    work: impl FnOnce(Stop, Announce) -> F,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::system("start"))?;
    let outcome = runtime.block_on(async {
        let stop = Stop::new(tied)?;
        work(stop, Announce).await
    });
    runtime.shutdown_background();
    if let Err(error) = &outcome {
        print_line(&json!({"error": error.chain()}));
    }
    outcome
}

/// Resolves when the process is to end.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    fn new(tied: bool) -> Result<Self, Error> {
        let (sender, receiver) = watch::channel(false);
        let listen = |kind| signal(kind).map_err(Error::system("listen to signals"));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let signalled = sender.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            signalled.send_replace(true);
        });
        if tied {
            // A thread, because reading standard input can't be given up.
            std::thread::Builder::new()
                .name("tie".to_owned())
                .spawn(move || {
                    let mut input = std::io::stdin().lock();
                    while input.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
                    sender.send_replace(true);
                })
                .map_err(Error::system("start a thread"))?;
        }
        Ok(Self(receiver))
    }
}

impl Stop {
    /// Resolves when the process is to end.
    pub(crate) async fn wait(mut self) {
        // A sender that is gone without a word leaves nothing to wait for; the signals' task never ends so.
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
