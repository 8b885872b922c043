//! Waiting for engines: their output as it comes, a progress line, interrupts.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::px::Last;
use super::{Engines, Notebook};
use crate::error::Error;
use crate::event::{EngineEvent, MimeBundle, Shown};
use crate::options::Signal;

/// How long engines may take to end after a signal.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How often the time in the progress line moves.
const TICK: Duration = Duration::from_secs(1);
/// So many events are merged at once at most.
const BATCH: usize = 4096;

/// How a wait goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// When the progress line appears; never if `None`.
    pub(super) progress_after: Option<Duration>,
    /// What engines get at an interrupt; if `None` an interrupt only ends the wait.
    pub(super) signal: Option<Signal>,
}

/// Waits until all engines have ended, and shows what is to be shown meanwhile.
pub(super) async fn wait(
    last: &mut Last,
    patience: Patience,
    engines: &mut impl Engines,
    notebook: &mut impl Notebook,
) -> Result<(), Error> {
    let started = Instant::now();
    let mut compiling = Compiling(None);
    let mut progress = Progress {
        next: patience
            .progress_after
            .and_then(|after| started.checked_add(after)),
        shown: false,
        last: None,
        started,
    };
    let mut deadline: Option<Instant> = None;
    let mut outcome = Ok(());
    while !last.merger.is_done() {
        tokio::select! {
            biased;
            () = notebook.interrupted() => {
                let pending = last.merger.pending();
                let signal = patience.signal.filter(|_| deadline.is_none());
                let Some(signal) = signal else {
                    outcome = Err(Error::Interrupted { engines: pending });
                    break;
                };
                notebook.show(Shown::stderr(format!(
                    "Received Keyboard Interrupt. Sending signal {signal} to engines...\n"
                )));
                deadline = Some(Instant::now() + GRACE);
                let sent = tokio::time::timeout(GRACE, engines.signal(&pending, signal)).await;
                if let Ok(Err(failure)) = sent {
                    outcome = Err(failure.into());
                    break;
                }
            }
            event = last.events.recv() => {
                let shown = take_in(last, event);
                let activity = last.merger.activity().filter(|_| progress.comes());
                compiling.set(activity, notebook);
                for shown in shown {
                    notebook.show(shown);
                }
                if progress.shown {
                    progress.show(last, notebook);
                }
            }
            () = at(progress.next) => {
                compiling.set(None, notebook);
                progress.show(last, notebook);
                progress.next = progress.next.map(|next| next + TICK);
            }
            () = at(deadline) => {
                outcome = Err(Error::Interrupted { engines: last.merger.pending() });
                break;
            }
        }
    }
    compiling.set(None, notebook);
    outcome
}

/// Merges an event and those that wait behind it. `None`: there will be no more.
fn take_in(last: &mut Last, event: Option<(crate::EngineId, EngineEvent)>) -> Vec<Shown> {
    let Some((engine, event)) = event else {
        let lost = last.merger.pending();
        return lost
            .into_iter()
            .flat_map(|engine| {
                let reason = "the connection to it ended".to_owned();
                last.merger.on_event(engine, EngineEvent::Lost { reason })
            })
            .collect();
    };
    let mut shown = last.merger.on_event(engine, event);
    for _ in 0..BATCH {
        let Ok((engine, event)) = last.events.try_recv() else {
            break;
        };
        shown.extend(last.merger.on_event(engine, event));
    }
    latest(shown)
}

/// Only the last state of a display that changed several times, since each update holds all of it.
fn latest(shown: Vec<Shown>) -> Vec<Shown> {
    let mut kept: Vec<Shown> = Vec::with_capacity(shown.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for shown in shown {
        match shown {
            Shown::Update {
                data,
                metadata,
                display_id,
            } => {
                let earlier = places
                    .get(&display_id)
                    .and_then(|place| kept.get_mut(*place));
                match earlier {
                    Some(
                        Shown::Display {
                            data: old,
                            metadata: old_metadata,
                            ..
                        }
                        | Shown::Update {
                            data: old,
                            metadata: old_metadata,
                            ..
                        },
                    ) => {
                        *old = data;
                        *old_metadata = metadata;
                    }
                    _ => {
                        places.insert(display_id.clone(), kept.len());
                        kept.push(Shown::Update {
                            data,
                            metadata,
                            display_id,
                        });
                    }
                }
            }
            other => {
                if let Shown::Display {
                    display_id: Some(id),
                    ..
                } = &other
                {
                    places.insert(id.clone(), kept.len());
                }
                kept.push(other);
            }
        }
    }
    kept
}

/// What engines wait for, until the progress line says so.
struct Compiling(Option<String>);

impl Compiling {
    fn set(&mut self, activity: Option<&str>, notebook: &mut impl Notebook) {
        if self.0.as_deref() != activity {
            self.0 = activity.map(str::to_owned);
            let activity = self.0.clone();
            notebook.show(Shown::Compiling { activity });
        }
    }
}

struct Progress {
    next: Option<Instant>,
    shown: bool,
    last: Option<MimeBundle>,
    started: Instant,
}

impl Progress {
    /// Whether it will be shown, and has not been.
    fn comes(&self) -> bool {
        self.next.is_some() && !self.shown
    }

    fn show(&mut self, last: &Last, notebook: &mut impl Notebook) {
        let data = last.merger.progress(self.started.elapsed().as_secs());
        if self.last.as_ref() == Some(&data) {
            return;
        }
        self.last = Some(data.clone());
        let display_id = last.merger.progress_id();
        let metadata = serde_json::Map::new();
        notebook.show(if self.shown {
            Shown::Update {
                data,
                metadata,
                display_id,
            }
        } else {
            Shown::Display {
                data,
                metadata,
                display_id: Some(display_id),
            }
        });
        self.shown = true;
    }
}

/// At that moment; never if there is none.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
