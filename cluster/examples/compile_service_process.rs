//! Plays the `chorus` program for the tests of the compile service: the front and its workers, with a handler that does what the
//! payload says.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::compile_service::front;
use cluster::compile_service::worker::{self, Activity, Cancel, Handler};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match arguments.first().map(String::as_str) {
        Some("service") => {
            let socket = value("--socket").ok_or("--socket is missing")?;
            let mut service = front::Arguments::new(socket.into(), vec!["worker".into()]);
            if let Some(ms) = value("--idle-ms") {
                service.idle = Duration::from_millis(ms.parse()?);
            }
            Ok(front::main(service)?)
        }
        Some("broken-service") => Err("this service is broken".into()),
        Some("worker") => Ok(worker::serve(Script::open)?),
        other => Err(format!("there is no role {other:?}").into()),
    }
}

/// Does what payloads say.
struct Script {
    key: String,
    doing: Arc<Mutex<Option<String>>>,
}

impl Script {
    fn open(key: &str) -> Result<Self, String> {
        if key == "broken" {
            return Err("this key cannot be opened".to_owned());
        }
        Ok(Self {
            key: key.to_owned(),
            doing: Arc::default(),
        })
    }

    fn tell(&self, doing: Option<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    /// Writes this process's number and a child's to `path.pid`, and waits until `path` exists or the request is cancelled; a
    /// deaf one doesn't listen to that.
    fn hold(&self, path: &Path, is_deaf: bool, cancel: &Cancel) -> std::io::Result<Value> {
        let mut child = Held(Command::new("sleep").arg("1000").spawn()?);
        let flag = path.with_extension("cancelled");
        let _guard = cancel.on_cancel(move || drop(fs::write(flag, "")));
        let new = path.with_extension("new");
        fs::write(&new, format!("{} {}", std::process::id(), child.0.id()))?;
        fs::rename(new, path.with_extension("pid"))?;
        self.tell(Some(format!("holding {}", path.display())));
        while !path.exists() && (is_deaf || !cancel.is_cancelled()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.0.kill()?;
        self.tell(None);
        Ok(json!("held"))
    }
}

struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        eprintln!("the handler is dropped");
    }
}

impl Handler for Script {
    fn handle(&mut self, payload: Value, cancel: &Cancel) -> Value {
        let text = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
        let path = PathBuf::from(text("path"));
        match payload["do"].as_str() {
            Some("echo") => payload["value"].clone(),
            Some("hold") => self
                .hold(&path, payload["deaf"] == true, cancel)
                .unwrap_or_else(|error| error.to_string().into()),
            Some("die") => std::process::abort(),
            Some("die-once") => {
                if fs::File::create_new(&path).is_ok() {
                    std::process::abort();
                }
                json!("survived")
            }
            #[expect(clippy::panic, reason = "the test is about a panic")]
            Some("panic") => panic!("{}", text("value")),
            Some("print") => {
                println!("{}", text("value"));
                let child = Command::new("echo").arg("of a child").status();
                child.is_ok_and(|status| status.success()).into()
            }
            Some("large") => "x"
                .repeat(payload["bytes"].as_u64().unwrap_or_default() as usize)
                .into(),
            Some("about") => json!({
                "pid": std::process::id(),
                "key": self.key,
                "folder": std::env::current_dir().unwrap_or_default(),
                "variable": std::env::var(text("variable")).ok(),
            }),
            other => format!("there is no {other:?}").into(),
        }
    }

    fn activity(&self) -> Activity {
        let doing = Arc::clone(&self.doing);
        Arc::new(move || doing.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
