//! Finding a service's process, and starting it when there is none.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::address::own_uid;
use super::error::last_lines;
use super::link::{Greeting, Link};
use super::{Address, ServiceConfig, ServiceError};

/// How long the service may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How much it may say until then.
const READY_LIMIT_BYTES: u64 = 1 << 16;
const LOG_LINES: usize = 10;

/// Connects to a service; `None` when no process listens.
pub(super) async fn connect(address: &Address) -> Result<Option<Link>, ServiceError> {
    let socket = address.socket();
    let stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    // The listener's process was killed before it accepted.
                    | io::ErrorKind::ConnectionReset
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(ServiceError::io("connect to", socket)(error)),
    };
    let peer = stream
        .peer_cred()
        .map_err(ServiceError::io("look at the process behind", &socket))?;
    if peer.uid() != own_uid() {
        return Err(ServiceError::OtherUser { socket });
    }
    match Link::establish(stream).await {
        Greeting::Welcome(link) => Ok(Some(link)),
        Greeting::Closed => Ok(None),
        Greeting::Silence => Err(ServiceError::NoAnswer {
            // Of the process that listens.
            pid: peer.pid().unwrap_or_default(),
        }),
    }
}

/// Connects to a service, and starts it when no process listens. Of clients that do so at the same moment, one starts it.
pub(super) async fn connect_or_start(
    address: &Address,
    config: &ServiceConfig,
) -> Result<Link, ServiceError> {
    if let Some(link) = connect(address).await? {
        return Ok(link);
    }
    // Unlocked when closed.
    let _lock = lock(address).await?;
    if let Some(link) = connect(address).await? {
        return Ok(link);
    }
    let socket = address.socket();
    match std::fs::remove_file(&socket) {
        Ok(()) => tracing::debug!(socket = %socket.display(), "removed a stale socket"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(ServiceError::io("remove the stale socket", socket)(error)),
    }
    let started = start(address, config).await;
    // A client that was killed while it held the lock may have left one that starts.
    match (connect(address).await?, started) {
        (Some(link), _) => Ok(link),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(failed(
            address,
            config,
            "it ended as soon as it was ready".to_owned(),
        )),
    }
}

/// Waits for the lock on a thread of its own: a runtime that ends waits for its blocking tasks.
async fn lock(address: &Address) -> Result<File, ServiceError> {
    let path = address.lock();
    let (sender, locked) = oneshot::channel();
    let open = {
        let path = path.clone();
        move || {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)?;
            file.lock()?;
            Ok(file)
        }
    };
    std::thread::Builder::new()
        .name("service-lock".to_owned())
        .spawn(move || drop(sender.send(open())))
        .map_err(ServiceError::io("start a thread to lock", &path))?;
    locked
        .await
        .unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
        .map_err(ServiceError::io("lock", &path))
}

/// Starts the service, and waits until it says that it listens.
async fn start(address: &Address, config: &ServiceConfig) -> Result<(), ServiceError> {
    let log = address.log();
    let file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_APPEND)
        .open(&log)
        .map_err(ServiceError::io("write the log", &log))?;
    let failed = |reason| failed(address, config, reason);
    let mut child = spawn(address, config, file)
        .map_err(|error| failed(format!("it cannot be run: {error}")))?;
    match timeout(START_TIMEOUT, ready(&mut child)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(failed(reason)),
        Err(_) => Err(failed(format!(
            "it did not listen within {} s",
            START_TIMEOUT.as_secs()
        ))),
    }
}

fn spawn(address: &Address, config: &ServiceConfig, log: File) -> io::Result<Child> {
    let mut command = Command::new(&config.program);
    command
        .args(&config.arguments)
        .arg("--socket")
        .arg(address.socket());
    for (name, value) in &config.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // Signals of a terminal are not meant for it, even before it has a session of its own.
        .process_group(0)
        .spawn()
}

/// Waits for the service's first line, then for the process that was started: it is not the service's own.
async fn ready(child: &mut Child) -> Result<(), String> {
    let Some(stdout) = child.stdout.take() else {
        return Err("its output cannot be read".to_owned());
    };
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout.take(READY_LIMIT_BYTES));
    stdout
        .read_line(&mut line)
        .await
        .map_err(|error| error.to_string())?;
    let said: Value = serde_json::from_str(&line).unwrap_or_default();
    let outcome = match (said.get("ready"), said.get("error").and_then(Value::as_str)) {
        (Some(_), _) => Ok(()),
        (None, Some(error)) => Err(error.to_owned()),
        (None, None) => Err("it ended before it listened".to_owned()),
    };
    if let Err(error) = child.wait().await {
        tracing::debug!(%error, "failed to wait for the process that started the service");
    }
    outcome
}

fn failed(address: &Address, config: &ServiceConfig, reason: String) -> ServiceError {
    let log = address.log();
    let text = std::fs::read(&log).unwrap_or_default();
    ServiceError::Start {
        program: config.program.clone(),
        reason,
        last_lines: last_lines(&String::from_utf8_lossy(&text), LOG_LINES),
        log,
    }
}
