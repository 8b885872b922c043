//! What clients and launchers say, in the words of magics.

use std::time::Duration;

use chorus::controller::{Ending, Error, Lost, Output, Said};
use magics::{EngineEvent, Failure, StreamName};
use protocol::message::iopub;

/// What an engine says of a snippet; nothing where magics have no use for it.
pub(super) fn event(said: Said) -> Option<EngineEvent> {
    Some(match said {
        Said::Output(Output::Stream(stream)) if stream.text.is_empty() => return None,
        Said::Output(Output::Stream(stream)) => EngineEvent::Stream {
            name: match stream.name {
                iopub::StreamName::Stdout => StreamName::Stdout,
                iopub::StreamName::Stderr => StreamName::Stderr,
            },
            text: stream.text,
        },
        Said::Output(Output::Display(shown)) => EngineEvent::Display {
            data: shown.data,
            metadata: shown.metadata,
            display_id: shown.transient.display_id,
        },
        Said::Output(Output::Update(shown)) => EngineEvent::Update {
            data: shown.data,
            metadata: shown.metadata,
            display_id: shown.transient.display_id?,
        },
        Said::Output(Output::Result(result)) => EngineEvent::Result {
            count: result.execution_count,
            data: result.data,
            metadata: result.metadata,
        },
        Said::Output(Output::CompileStatus(status)) => EngineEvent::Compiling {
            activity: status.activity,
        },
        // Whoever completes names asks for it elsewhere.
        Said::Lineage(_) => return None,
        // What an engine showed is among what others did.
        Said::Output(Output::Clear(_)) => return None,
        Said::Ended(Ending::Done) => EngineEvent::Done,
        Said::Ended(Ending::Failed(error)) => {
            let mut failure = Failure {
                ename: error.ename,
                evalue: error.evalue,
                traceback: error.traceback,
            };
            if failure.traceback.is_empty() {
                failure.traceback.push(failure.evalue.clone());
            }
            EngineEvent::error(failure)
        }
        Said::Ended(Ending::Aborted) => EngineEvent::Failed(Failure::new(
            "aborted",
            "The snippet was taken out of the engine's queue before it ran.",
        )),
        Said::Ended(Ending::Lost(lost)) => EngineEvent::Lost {
            reason: reason(&lost),
        },
    })
}

/// Why an engine does not answer, as a clause.
fn reason(lost: &Lost) -> String {
    match lost {
        Lost::Engine(_) => "its process has ended, or cannot be reached",
        Lost::Controller { told: true, .. } => "the cluster was shut down",
        Lost::Controller { told: false, .. } => "the cluster's controller has gone",
        Lost::Closed => "this notebook has left the cluster",
    }
    .to_owned()
}

/// An error of a connection.
pub(super) fn failure(error: Error) -> Failure {
    let ename = match error {
        Error::NoAnswer { .. } | Error::Lost(_) | Error::NoEngine { .. } => "no engines",
        _ => "cluster",
    };
    Failure::new(ename, sentence(&error.chain()))
}

/// An error of a launcher.
pub(super) fn cluster_failure(error: cluster::Error) -> Failure {
    Failure::new("cluster", sentence(&error.chain()))
}

/// There is no cluster where one is needed.
pub(super) fn no_cluster() -> Failure {
    Failure::new(
        "no engines",
        "There is no cluster (any more). `%cluster start` starts one, and so does the next %px.",
    )
}

/// The controller does not answer.
pub(super) fn silent(waited: Duration) -> Failure {
    Failure::new(
        "no engines",
        format!("The cluster's controller did not answer within {waited:?}."),
    )
}

/// A cluster that can be used, and cannot be changed, from here.
pub(super) fn not_ours(name: &str, what: &str) -> Failure {
    Failure::new(
        "cluster",
        format!(
            "The cluster \"{name}\" was not started by Chorus on this machine, so {what} cannot be started from here: do that where it \
             was started."
        ),
    )
}

/// As users read it: capital, full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase());
    let mut sentence: String = first.into_iter().flatten().chain(chars).collect();
    if !sentence.ends_with(['.', '?', '!']) {
        sentence.push('.');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use chorus::controller::EngineId;
    use protocol::message::ErrorInfo;
    use protocol::message::iopub::{DisplayData, Stream, Transient, UpdateDisplayData};

    use super::*;

    #[test]
    fn endings() {
        let failed = |ename: &str| {
            Said::Ended(Ending::Failed(ErrorInfo {
                ename: ename.to_owned(),
                evalue: "why".to_owned(),
                traceback: Vec::new(),
            }))
        };
        for (said, start) in [
            (Said::Ended(Ending::Done), "Done"),
            (failed("compile error"), "Rejected(Failure"),
            (failed("panic"), "Failed(Failure"),
            (Said::Ended(Ending::Aborted), "Failed(Failure"),
            (Said::Ended(Ending::Lost(Lost::Engine(EngineId(1)))), "Lost"),
        ] {
            let event = event(said).unwrap();
            assert!(event.is_end());
            assert!(format!("{event:?}").starts_with(start), "{event:?}");
        }
        let Some(EngineEvent::Failed(failure)) = event(failed("panic")) else {
            panic!("a panic is a failure")
        };
        assert_eq!(failure.traceback, ["why"], "there is something to show");
    }

    #[test]
    fn output() {
        let stream = |text: &str| {
            Said::Output(Output::Stream(Stream {
                name: iopub::StreamName::Stderr,
                text: text.to_owned(),
            }))
        };
        assert_eq!(event(stream("")), None);
        assert_eq!(
            event(stream("x")),
            Some(EngineEvent::Stream {
                name: StreamName::Stderr,
                text: "x".to_owned()
            })
        );
        let update = |transient| {
            Said::Output(Output::Update(UpdateDisplayData {
                transient,
                ..UpdateDisplayData::default()
            }))
        };
        assert_eq!(event(update(Transient::default())), None, "of what?");
        assert!(event(update(Transient::named("d"))).is_some());
        let display = Said::Output(Output::Display(DisplayData::default()));
        assert!(matches!(
            event(display),
            Some(EngineEvent::Display {
                display_id: None,
                ..
            })
        ));
    }
}
