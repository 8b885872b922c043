//! An engine's way to a compiler, with the artifacts that it has had: its cluster's, or its own where there is none or that has ended.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::message::ErrorInfo;

use crate::compile::{Artifact, Client, DirectCompiler, Ended, Request, Trouble};
use crate::connection::{EngineFile, Libraries};
use crate::executor::{CompileRequest, Compiled, Ending, Settlement, StatusSender};
use crate::failure::{self, PanicLocations, Subject};

/// Artifacts that are remembered.
const KNOWN: usize = 4096;

/// See the module. Clones share what they know.
#[derive(Clone, Debug)]
pub(super) struct SnippetCompiler {
    client: Option<Client>,
    own: DirectCompiler,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    artifacts: HashMap<Request, Artifact>,
    oldest: VecDeque<Request>,
}

impl SnippetCompiler {
    /// Connects to the compiler that a connection file names; `own` is used without one.
    pub(super) fn connect(file: &EngineFile, own: DirectCompiler) -> Self {
        let client = file.compile.and_then(|port| {
            Client::connect(&file.endpoint(port), &file.common.key)
                .inspect_err(|error| tracing::error!("{}", error.chain()))
                .ok()
        });
        Self {
            client,
            own,
            known: Arc::default(),
        }
    }

    /// Asks the cluster's compiler, or this engine's own if that is not there.
    async fn ask<T>(
        &self,
        cluster: impl AsyncFnOnce(&Client) -> Result<T, Trouble>,
        own: impl AsyncFnOnce(&DirectCompiler) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        if let Some(client) = &self.client {
            match cluster(client).await {
                Err(Trouble::Gone(reason)) => {
                    tracing::warn!(reason, "the cluster's compiler cannot be reached");
                }
                answered => return answered,
            }
        }
        own(&self.own).await
    }

    /// What runtimes load first.
    pub(super) async fn libraries(&self) -> Result<Libraries, ErrorInfo> {
        let libraries = self
            .ask(
                async |client| client.libraries().await,
                async |own| own.libraries().await,
            )
            .await;
        libraries.map_err(error)
    }

    /// Finds out what a snippet is compiled to. What was compiled before does not wait for anything.
    pub(super) async fn compile(
        self,
        request: CompileRequest,
        status: StatusSender,
    ) -> Result<Compiled, ErrorInfo> {
        let CompileRequest { request, .. } = request;
        if let Some(artifact) = self.find(&request) {
            return Ok(artifact.into());
        }
        let tell = |activity| status.send(activity);
        let artifact = self
            .ask(
                async |client| client.compile(&request, tell).await,
                async |own| own.compile(&request, tell).await,
            )
            .await
            .map_err(error)?;
        if !artifact.reads {
            self.remember(request, artifact.clone());
        }
        Ok(artifact.into())
    }

    fn find(&self, request: &Request) -> Option<Artifact> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let artifact = known.artifacts.get(request)?;
        let is_there = artifact.loads.iter().all(|load| load.exists());
        is_there.then(|| artifact.clone())
    }

    fn remember(&self, request: Request, artifact: Artifact) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.artifacts.insert(request.clone(), artifact).is_none() {
            known.oldest.push_back(request);
        }
        if known.oldest.len() > KNOWN
            && let Some(oldest) = known.oldest.pop_front()
        {
            known.artifacts.remove(&oldest);
        }
    }

    /// Finds out which lineage the namespace has after a snippet that ended early, and where that was.
    pub(super) async fn settle(self, ending: Ending) -> Option<Settlement> {
        // Without variables an engine's namespace begins anew.
        let Ending::Early { request, panic } = ending else {
            return None;
        };
        let location = panic.and_then(|panic| panic.location);
        let ended = Ended {
            request: request.request,
            location: location.map(|location| (location.file, location.line)),
        };
        let aftermath = self
            .ask(
                async |client| client.after_early_end(&ended).await,
                async |own| own.after_early_end(&ended).await,
            )
            .await;
        match aftermath {
            Ok(aftermath) => Some(Settlement {
                lineage: aftermath.lineage,
                locations: PanicLocations {
                    panic: aftermath.place.map(Into::into),
                    frames: Vec::new(),
                },
            }),
            Err(trouble) => {
                tracing::warn!(?trouble, "the state after a panic is not known");
                None
            }
        }
    }
}

fn error(trouble: Trouble) -> ErrorInfo {
    match trouble {
        Trouble::Diagnostics(diagnostics) => failure::compile(Subject::Snippet, &diagnostics),
        Trouble::Gone(reason) => failure::plain(
            "no compiler",
            format!(
                "This engine has no compiler: {reason}. What was compiled before still runs. `chorus compiler status`, where the \
                 engine runs, says more."
            ),
        ),
    }
}
