//! The user's compile service as a [`Compiler`].

use super::environment;
use super::worker::Key;
use anyhow::Context;
use cluster::compile_service::{
    Address, Client, DEFAULT_IDLE, Inquiry, Request, ServiceConfig, ServiceError,
};
use compiler::Ticket;
use compiler::lineages::{Answer, Ask, Base, Compiler, Failure, Refused, program_id};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell};
use tokio::time::timeout;

use crate::kernel::lock;

/// A private service's time without connections, after which it ends.
const PRIVATE_IDLE: Duration = Duration::from_secs(5);
/// The limit for an answer about the activity.
const ACTIVITY_TIMEOUT: Duration = Duration::from_secs(1);

/// The id of this program's service: each version of it has its own.
pub(crate) fn id(executable: &Path) -> String {
    let version = env!("CARGO_PKG_VERSION").replace('.', "-");
    format!("{version}-{}", program_id(executable))
}

/// Asks the compile service of this user, and starts it when there is none. Where no folder can have its socket, it is one for this session alone.
#[derive(Debug)]
pub(crate) struct ServiceCompiler {
    runtime: Handle,
    client: OnceCell<Client>,
    /// The service's, from before the program's file could be replaced.
    id: String,
    /// What a worker has to be opened with.
    key: String,
    /// A folder of this session's, which also tells it from others.
    session: PathBuf,
    /// The compile that was asked for last.
    compile: Mutex<Option<Inquiry>>,
    /// Whether a completion has come.
    completes: AtomicBool,
}

impl ServiceCompiler {
    /// A compiler for clients with this base and this process's environment. Nothing is started before something is asked. The connection's task runs in
    /// the tokio runtime of `runtime`.
    pub(crate) fn new(
        runtime: Handle,
        executable: PathBuf,
        base: &Base,
        session: PathBuf,
    ) -> anyhow::Result<Self> {
        let folder = std::env::current_dir().ok();
        let key = Key {
            environment: environment::shared(),
            base: base.clone(),
            folder: folder.filter(|folder| folder.join("evcxr.toml").exists()),
            executable: executable.clone(),
        };
        let key = serde_json::to_string(&key).context("failed to describe the compiler")?;
        Ok(Self {
            runtime,
            client: OnceCell::new(),
            id: id(&executable),
            key,
            session,
            compile: Mutex::default(),
            completes: AtomicBool::new(false),
        })
    }

    async fn client(&self) -> Result<&Client, ServiceError> {
        self.client.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Client, ServiceError> {
        let config = |idle: Duration| ServiceConfig {
            id: self.id.clone(),
            // The same version of the program, even if its file was replaced since.
            program: "/proc/self/exe".into(),
            arguments: ["compiler", "serve", "--idle", &idle.as_secs().to_string()]
                .map(Into::into)
                .into(),
            // A service outlives the client that starts it.
            environment: environment::personal_names()
                .map(|name| (name, None))
                .collect(),
        };
        match Client::open(config(idle())).await {
            Err(error @ ServiceError::NoFolder { .. }) => {
                tracing::warn!("this session has a compile service of its own: {error}");
                let config = config(PRIVATE_IDLE);
                let address = Address::find_in(Some(&self.session), &self.session, &config.id)?;
                Client::open_at(address, config).await
            }
            opened => opened,
        }
    }

    async fn request(&self, payload: Value, is_compile: bool) -> Result<Value, ServiceError> {
        let request = Request {
            key: self.key.clone(),
            affinity: self.session.to_string_lossy().into_owned(),
            is_minor: !is_compile,
            payload,
        };
        let pending = self.client().await?.submit(&request);
        if is_compile {
            *lock(&self.compile) = Some(pending.inquiry());
        }
        pending.await
    }
}

/// Says how long the user's service stays without a connection, in seconds.
pub(super) const IDLE: &str = "CHORUS_COMPILER_IDLE";

fn idle() -> Duration {
    let seconds = std::env::var(IDLE).ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    seconds.map_or(DEFAULT_IDLE, Duration::from_secs)
}

impl Compiler for ServiceCompiler {
    fn ask(&self, ask: Ask, ticket: &Ticket) -> Result<Answer, Refused> {
        let is_compile = matches!(ask, Ask::Compile(_));
        let completes = matches!(ask, Ask::Complete(_));
        let unavailable = |reason: String| Refused::Failure(Failure::Unavailable(reason));
        let payload = serde_json::to_value(&ask).map_err(|error| unavailable(error.to_string()))?;
        let given_up = Arc::new(Notify::new());
        let notify = Arc::clone(&given_up);
        ticket.when_given_up(move || notify.notify_one());
        let answered = self.runtime.block_on(async {
            tokio::select! {
                answered = self.request(payload, is_compile) => answered.map_err(|error| unavailable(error.chain())),
                // Nobody sees this answer.
                () = given_up.notified() => Err(unavailable("interrupted".to_owned())),
            }
        });
        if is_compile {
            *lock(&self.compile) = None;
        }
        let answer: Result<Answer, Refused> = serde_json::from_value(answered?)
            .map_err(|error| unavailable(format!("its answer cannot be understood: {error}")))?;
        self.completes
            .fetch_or(completes && answer.is_ok(), Ordering::Relaxed);
        answer
    }

    fn completes(&self) -> bool {
        self.completes.load(Ordering::Relaxed)
    }

    fn activity(&self) -> Option<String> {
        let inquiry = lock(&self.compile).clone()?;
        let activity = async { timeout(ACTIVITY_TIMEOUT, inquiry.activity()).await };
        self.runtime.block_on(activity).ok().flatten()
    }
}
