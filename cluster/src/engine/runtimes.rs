//! Starts the runtimes of an engine: the namespace's, and those of stand-alone programs.
//!
//! A closure of a program's own executable can run nowhere else, since no other process can load that file. So the engine starts the program
//! anew, as a runtime: the crate `chorus` in it sees to that before its `main`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use protocol::message::ErrorInfo;
use runtime::{Call, Runtime};

use super::Config;
use super::compiler::SnippetCompiler;
use super::snippet::Pieces;
use crate::EngineId;
use crate::connection::Libraries;
use crate::executor::{Program, RuntimeId, StartRuntime, Started};
use crate::failure::{self, Subject};

/// The engine's number, for snippets that share work between them.
const ENGINE_ID: &str = "CHORUS_ENGINE_ID";
/// The folder through which snippets take and give values.
const PIECES: &str = "CHORUS_PIECES";

/// See the module.
pub(super) struct RuntimeStarter {
    config: Config,
    engine: EngineId,
    compiler: SnippetCompiler,
    /// What the namespace's runtime loads, once that is known.
    libraries: Arc<OnceLock<Libraries>>,
    /// Where snippets take and give values; nothing if there is no place for that.
    pieces: Option<Pieces>,
}

impl RuntimeStarter {
    pub(super) fn new(
        config: Config,
        engine: EngineId,
        compiler: SnippetCompiler,
        libraries: Option<Libraries>,
    ) -> Self {
        Self {
            config,
            engine,
            compiler,
            libraries: Arc::new(libraries.map_or_else(OnceLock::new, OnceLock::from)),
            pieces: None,
        }
    }

    /// Where snippets of the namespace take and give values.
    ///
    /// # Errors
    /// When there is no place for that, in words for a request's sender.
    pub(super) fn pieces(&self) -> Result<&Pieces, String> {
        self.pieces.as_ref().ok_or_else(|| {
            "this engine has no folder through which values could come and go; its log says why"
                .to_owned()
        })
    }

    pub(super) fn start(
        &mut self,
        start: StartRuntime,
    ) -> impl Future<Output = Result<Started, ErrorInfo>> + Send + 'static {
        let limit = self.config.checkpoint_limit;
        let command = match &start {
            StartRuntime::Namespace { .. } => self.namespace_command(),
            StartRuntime::Program { path, .. } => self.command(path),
        };
        let (compiler, known) = (self.compiler.clone(), Arc::clone(&self.libraries));
        async move {
            match start {
                StartRuntime::Namespace { libraries } => {
                    let libraries = match libraries.as_ref().or(known.get()) {
                        Some(libraries) => libraries.clone(),
                        None => compiler.libraries().await?,
                    };
                    let started = start_namespace(command, &libraries, limit).await?;
                    // The first answer holds for all.
                    let _ = known.set(libraries);
                    Ok(started)
                }
                StartRuntime::Program { path, .. } => start_program(path, command, limit).await,
            }
        }
    }

    /// Runs a program as a runtime of this engine.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env(ENGINE_ID, self.engine.to_string());
        command
    }

    fn namespace_command(&mut self) -> Command {
        let mut command = self.command(self.config.runtime.get_program());
        command.args(self.config.runtime.get_args());
        self.pieces = Pieces::make()
            .inspect_err(|error| tracing::warn!(%error, "failed to make a folder for pieces"))
            .ok();
        if let Some(pieces) = &self.pieces {
            command.env(PIECES, pieces.path());
        }
        command
    }
}

async fn start_namespace(
    command: Command,
    libraries: &Libraries,
    checkpoint_limit: u64,
) -> Result<Started, ErrorInfo> {
    let mut config = runtime::Config::new(command, libraries.support.clone());
    config.preload = libraries.preload.clone();
    config.checkpoint_limit = checkpoint_limit;
    let started = Runtime::start(config).await;
    started.map_err(|error| failure::not_ready(Subject::Snippet, &error.to_string()))
}

async fn start_program(
    path: PathBuf,
    command: Command,
    checkpoint_limit: u64,
) -> Result<Started, ErrorInfo> {
    let mut config = runtime::Config::of_program(command);
    config.checkpoint_limit = checkpoint_limit;
    let started = Runtime::start(config).await;
    started.map_err(|error| {
        failure::plain(
            "not run",
            format!(
                "The program {} did not start as an engine's runtime: {error}. It has to be linked to the crate `chorus` with the feature \
                 `client`, in the version that the engine is of ({}), and to run on this machine.",
                path.display(),
                env!("CARGO_PKG_VERSION")
            ),
        )
    })
}

/// Where a call is made: in the runtime of its program, or with what cells made.
pub(super) fn runtime_of(call: &Call, executable: bool) -> Result<RuntimeId, ErrorInfo> {
    if !executable {
        return Ok(RuntimeId::Namespace);
    }
    let path: &Path = &call.artifact;
    let program = Program::at(path).map_err(|error| {
        failure::plain(
            "not run",
            format!(
                "The program {} cannot be started as an engine's runtime: {error}. Was it moved or built anew since it started?",
                path.display()
            ),
        )
    })?;
    Ok(RuntimeId::Program(program))
}
