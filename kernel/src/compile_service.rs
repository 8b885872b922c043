//! `chorus compiler`: a cluster's compile service (`cluster::compile`) with [`compiler::Lineages`] behind it.

use crate::crates::CRATES;
use crate::translate;
use anyhow::Context;
use cluster::compile::{self, Aftermath, Artifact, Diagnostic, Ended, Place, Request};
use cluster::connection::Libraries;
use compiler::folder::Folder;
use compiler::lineages::{Compiler, Failure, Lineages, Options, Owner, Thread};
use compiler::{Source, Ticket};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

/// How large the store of compiled snippets may become, in bytes; `CHORUS_CACHE_MB` (in megabytes) says otherwise.
const LIMIT: u64 = 1_000_000_000;

/// How long the end of evcxr's thread is waited for. Should it take longer, the next session removes what it leaves.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the service that a cluster's connection file names, until it is told to end.
pub(crate) fn main(arguments: compile::Arguments) -> anyhow::Result<()> {
    let executable = std::env::current_exe().context("failed to find this program's file")?;
    let folder = Folder::create().context("failed to make a temporary folder")?;
    for (name, value) in folder.environment() {
        // SAFETY: no other thread has been started.
        unsafe { std::env::set_var(name, value) };
    }
    let (working, ended) = mpsc::channel();
    let path = folder.path().to_owned();
    let compiler = Arc::new(OnceLock::<Arc<Thread>>::new());
    let started = Arc::clone(&compiler);
    let open = move || -> anyhow::Result<Service> {
        let (thread, base) = Thread::start(Owner::Engine, &options(executable), path, working)?;
        let thread = started.get_or_init(|| Arc::new(thread));
        let lineages = Lineages::new(Owner::Engine, base, Arc::clone(thread) as _, None);
        Ok(Service { lineages })
    };
    let open = || open().map_err(|error| format!("{error:#}"));
    let activity = move || compiler.get()?.activity();
    let outcome = compile::main(arguments, open, activity);
    // evcxr's thread may be in the middle of a compile that nobody waits for.
    compiler::stop_compiles();
    // It says nothing, and its channel closes when the thread has ended. A folder that it still writes to can't be removed.
    let _ = ended.recv_timeout(PATIENCE);
    Ok(outcome?)
}

/// What all compilers of this program have in common.
pub(crate) fn options(executable: PathBuf) -> Options {
    Options {
        store: compiler::folder::cache().join("snippets"),
        limit: limit(),
        executable,
        support_source: runtime::SUPPORT_SOURCE,
        crates: CRATES,
    }
}

/// What engines on this machine load before any artifact; engines ask the compiler where it is not known here.
pub(crate) fn libraries() -> Option<Libraries> {
    let rustc = compiler::toolchain::rustc();
    compiler::support::ensure(&rustc, runtime::SUPPORT_SOURCE)
        .map(|support| translate::libraries(&support))
        .map_err(|error| tracing::warn!("{error}"))
        .ok()
}

fn limit() -> u64 {
    std::env::var("CHORUS_CACHE_MB")
        .ok()
        .and_then(|megabytes| megabytes.parse::<u64>().ok())
        .map_or(LIMIT, |megabytes| megabytes.saturating_mul(1_000_000))
}

/// Translates between the cluster's words and the compiler's.
#[derive(Debug)]
struct Service {
    lineages: Lineages,
}

fn translated(request: &Request) -> compiler::Request {
    compiler::Request {
        lineage: translate::name_of(&request.lineage).to_owned(),
        source: Source {
            code: request.source.clone(),
            shown: None,
        },
        count: None,
        environment: BTreeMap::new(),
    }
}

fn diagnostics(failure: Failure) -> Vec<Diagnostic> {
    failure
        .into_diagnostics()
        .into_iter()
        .map(translate::diagnostic)
        .collect()
}

impl compile::Compiler for Service {
    fn libraries(&mut self) -> Result<Libraries, String> {
        Ok(translate::libraries(self.lineages.support()))
    }

    fn compile(&mut self, request: &Request) -> Result<Artifact, Vec<Diagnostic>> {
        self.lineages
            .compile(&translated(request), &Ticket::default())
            .map(translate::artifact)
            .map_err(diagnostics)
    }

    fn after_early_end(&mut self, ended: &Ended) -> Result<Aftermath, Vec<Diagnostic>> {
        let location = ended
            .location
            .as_ref()
            .map(|(file, line)| (file.as_str(), *line));
        let aftermath = self
            .lineages
            .after_early_end(&translated(&ended.request), location)
            .map_err(diagnostics)?;
        Ok(Aftermath {
            lineage: translate::lineage(aftermath.lineage),
            place: aftermath.place.map(|line| Place {
                line: line.number,
                text: line.text,
            }),
        })
    }
}
