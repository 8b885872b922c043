//! The compilers of a cluster: `chorus compiler`, which its engines ask (`cluster::compile`), and an engine's own, with [`compiler::Lineages`] behind both.

use super::{ServiceCompiler, options};
use crate::translate;
use anyhow::Context;
use cluster::compile::{self, Aftermath, Artifact, Diagnostic, Ended, Place, Request};
use cluster::compile_service::worker::Cancel;
use cluster::connection::Libraries;
use compiler::folder::Folder;
use compiler::lineages::{Base, Compiler, Failure, Lineages, Owner};
use compiler::{Source, Ticket};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Runs the compiler that a cluster's connection file names, until it is told to end.
pub(crate) fn main(arguments: compile::Arguments) -> anyhow::Result<()> {
    Ok(compile::main(arguments, open)?)
}

/// Makes a compiler. Called within a tokio runtime.
pub(crate) fn open() -> Result<Box<dyn compile::Compiler>, String> {
    let compiler = ClusterCompiler::open().map_err(|error| format!("{error:#}"))?;
    Ok(Box::new(compiler))
}

/// What engines on this machine load before any artifact; engines ask the compiler where it is not known here.
pub(crate) fn libraries() -> Option<Libraries> {
    let rustc = compiler::toolchain::rustc();
    compiler::support::ensure(&rustc, runtime::SUPPORT_SOURCE)
        .map(|support| translate::libraries(&support))
        .map_err(|error| tracing::warn!("{error}"))
        .ok()
}

/// Translates between the cluster's words and the compiler's.
struct ClusterCompiler {
    lineages: Lineages,
    compiler: Arc<ServiceCompiler>,
    /// Has the shared objects for as long as this lives.
    _folder: Folder,
}

impl ClusterCompiler {
    fn open() -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("failed to find this program's file")?;
        let folder = Folder::create().context("failed to make a temporary folder")?;
        let session = folder.path().to_owned();
        let base = Base::prepare(&options(executable.clone()), &session)?;
        let compiler = ServiceCompiler::new(Handle::current(), executable, &base, session.clone())?;
        let compiler = Arc::new(compiler);
        let lineages = Lineages::new(Owner::Engine, base, Arc::clone(&compiler) as _, &session);
        Ok(Self {
            lineages,
            compiler,
            _folder: folder,
        })
    }
}

fn translated(request: &Request) -> compiler::Request {
    compiler::Request {
        lineage: translate::name_of(&request.lineage).to_owned(),
        source: Source {
            code: request.source.clone(),
            shown: None,
        },
        count: None,
        environment: super::environment::personal(&request.source),
    }
}

fn diagnostics(failure: Failure) -> Vec<Diagnostic> {
    failure
        .into_diagnostics()
        .into_iter()
        .map(translate::diagnostic)
        .collect()
}

impl compile::Compiler for ClusterCompiler {
    fn libraries(&self) -> Result<Libraries, String> {
        Ok(translate::libraries(self.lineages.support()))
    }

    fn compile(&self, request: &Request, cancel: &Cancel) -> Result<Artifact, Vec<Diagnostic>> {
        let ticket = Ticket::default();
        let cancelled = ticket.clone();
        let _cancelled = cancel.on_cancel(move || cancelled.withdraw());
        self.lineages
            .compile(&translated(request), &ticket)
            .map(translate::artifact)
            .map_err(diagnostics)
    }

    fn after_early_end(&self, ended: &Ended) -> Result<Aftermath, Vec<Diagnostic>> {
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

    fn activity(&self) -> Option<String> {
        self.compiler.activity()
    }
}
