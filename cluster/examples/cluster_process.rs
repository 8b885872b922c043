//! Plays the `chorus` program for the tests: all roles of a cluster, with a compiler that hands a snippet to rustc as it is.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use cluster::compile::{Aftermath, Artifact, Compiler, Diagnostic, Ended, Place, Request};
use cluster::compile_service::worker::Cancel;
use cluster::connection::Libraries;
use cluster::launcher::{self, Lifetime, Options};
use cluster::profile::{self, Profile};
use cluster::{EngineId, Lineage, compile, controller, engine};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let role = arguments.first().map(String::as_str).unwrap_or_default();
    if role == "runtime" {
        runtime::child_main();
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let tied = flag("--tied");
    let file = || {
        value("--file")
            .map(PathBuf::from)
            .ok_or("--file is missing")
    };
    match role {
        "controller" => {
            let arguments = controller::Arguments {
                profile_dir: value("--profile-dir").unwrap_or_default().into(),
                cluster_id: value("--cluster-id").unwrap_or_default(),
                reuse: flag("--reuse"),
                tied,
            };
            Ok(controller::main(arguments, || {
                Rustc::open().ok()?.libraries().ok()
            })?)
        }
        "engine" => {
            let mut runtime = Command::new(std::env::current_exe()?);
            runtime.arg("runtime");
            let arguments = engine::Arguments {
                file: file()?,
                id: value("--id").and_then(|id| id.parse().ok()).map(EngineId),
                checkpoint_mb: value("--checkpoint-mb").and_then(|mb| mb.parse().ok()),
                tied,
            };
            Ok(engine::main(arguments, runtime, Rustc::open_boxed)?)
        }
        "compiler" => {
            let arguments = compile::Arguments {
                file: file()?,
                tied,
            };
            Ok(compile::main(arguments, Rustc::open_boxed)?)
        }
        "cluster" => {
            let profile =
                Profile::named(&value("--profile").unwrap_or(profile::DEFAULT.to_owned()))?;
            let tokio = tokio::runtime::Runtime::new()?;
            tokio.block_on(cluster(&arguments, profile, &value, flag("--daemonize")))
        }
        other => Err(format!("there is no role {other:?}").into()),
    }
}

async fn cluster(
    arguments: &[String],
    profile: Profile,
    value: &dyn Fn(&str) -> Option<String>,
    background: bool,
) -> Result<(), Box<dyn Error>> {
    let id = value("--cluster-id").unwrap_or_default();
    let count = value("-n").and_then(|count| count.parse().ok());
    match arguments.get(1).map(String::as_str) {
        Some("start") => {
            let mut options = Options::new(profile)?;
            options.cluster_id = id;
            options.engines = count;
            if background {
                options.lifetime = Lifetime::Background;
            }
            let mut cluster = launcher::start(options).await?;
            println!("{}", cluster.files().client.display());
            if !background {
                cluster.ended().await;
            }
        }
        Some("stop") => launcher::stop(&profile, &id).await?,
        Some("status") => println!("{:?}", launcher::status(&profile, &id).await?),
        Some("list") => println!("{:?}", launcher::list(&profile::root()?)?),
        Some("clean") => println!("{:?}", launcher::clean(&profile).await?),
        Some("add") => {
            let mut options = Options::new(profile)?;
            options.cluster_id = id;
            options.lifetime = Lifetime::Background;
            let added = launcher::add_engines(&options, count.unwrap_or(1)).await?;
            println!("{added:?}");
        }
        Some("remove") => {
            launcher::remove_engines(&profile, &id, &[EngineId(count.unwrap_or(0))]).await?;
        }
        other => return Err(format!("there is no command {other:?}").into()),
    }
    Ok(())
}

/// A snippet is the body of a function that may use `store`. Its lineage is what put something into it.
struct Rustc {
    folder: PathBuf,
    /// Locked during a compile.
    compiled: Mutex<HashMap<Request, Artifact>>,
}

impl Rustc {
    fn open() -> Result<Self, String> {
        let folder = std::env::temp_dir().join("chorus-cluster-process");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        Ok(Self {
            folder,
            compiled: Mutex::default(),
        })
    }

    /// For [`compile::main`] and [`engine::main`].
    fn open_boxed() -> Result<Box<dyn Compiler>, String> {
        Ok(Box::new(Self::open()?))
    }

    fn rustc(&self, source: &str, arguments: &[&str], out: &Path) -> Result<(), String> {
        if out.exists() {
            return Ok(());
        }
        let work = tempfile::tempdir_in(&self.folder).map_err(|error| error.to_string())?;
        let (input, made) = (work.path().join("src.rs"), work.path().join("made.so"));
        fs::write(&input, source).map_err(|error| error.to_string())?;
        let output = Command::new("rustc")
            .args(["--edition", "2024", "-Cprefer-dynamic", "-Cdebuginfo=0"])
            .args(arguments)
            .arg("-o")
            .args([&made, &input])
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        fs::rename(made, out).map_err(|error| error.to_string())
    }
}

fn name(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (text, runtime::SUPPORT_SOURCE).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Compiler for Rustc {
    fn libraries(&self) -> Result<Libraries, String> {
        let folder = self.folder.join(name("support"));
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let support = folder.join("libchorus_support.so");
        let arguments = [
            "--crate-name",
            "chorus_support",
            "--crate-type",
            "dylib",
            "-Copt-level=2",
        ];
        self.rustc(runtime::SUPPORT_SOURCE, &arguments, &support)?;
        let kept = folder.join("libstd.path");
        if let Ok(path) = fs::read_to_string(&kept) {
            return Ok(Libraries {
                support,
                preload: vec![path.into()],
            });
        }
        let printed = Command::new("rustc")
            .args(["--print", "target-libdir"])
            .output()
            .map_err(|error| error.to_string())?;
        let libdir = String::from_utf8_lossy(&printed.stdout).trim().to_owned();
        let entries = fs::read_dir(libdir).map_err(|error| error.to_string())?;
        let std = entries.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".so")
        });
        let std = std.ok_or("there is no libstd")?;
        fs::write(&kept, std.display().to_string()).map_err(|error| error.to_string())?;
        Ok(Libraries {
            support,
            preload: vec![std],
        })
    }

    fn compile(&self, request: &Request, _: &Cancel) -> Result<Artifact, Vec<Diagnostic>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(artifact) = compiled.get(request) {
            return Ok(artifact.clone());
        }
        let failed = |message: String| {
            vec![Diagnostic {
                code: None,
                rendered: message.clone(),
                message,
            }]
        };
        let support = self.libraries().map_err(failed)?.support;
        let source = request.source.trim();
        let is_expression = !source.ends_with([';', '}']);
        let body = match is_expression {
            true => format!("send_text_plain(&format!(\"{{:?}}\", {{ {source} }}));"),
            false => source.to_owned(),
        };
        let text = format!(
            "#![allow(unused, unreachable_code)]\nuse ::chorus_support::*;\n#[unsafe(no_mangle)]\n\
             pub extern \"C\" fn chorus_entry(mut store: *mut VariableStore) -> *mut VariableStore {{\n\
             if store.is_null() {{ store = create_variable_store(); }}\nlet store = unsafe {{ &mut *store }};\n\
             match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {{\n{body}\n}})) \
             {{ Ok(_) => {{}} Err(_) => panicked() }}\nstore\n}}\n"
        );
        let out = self.folder.join(format!("{}.so", name(&text)));
        let external = format!("chorus_support={}", support.display());
        let arguments = [
            "--crate-name",
            "ctx",
            "--crate-type",
            "cdylib",
            "--extern",
            &external,
        ];
        self.rustc(&text, &arguments, &out).map_err(failed)?;
        let lineage = match source.contains("put_variable") {
            true => Lineage(name(&format!("{}\n{source}", request.lineage))),
            false => request.lineage.clone(),
        };
        let artifact = Artifact {
            loads: vec![out],
            entry: "chorus_entry".to_owned(),
            lineage,
            shown: serde_json::Map::new(),
            ends_in_expression: is_expression,
            lost: Vec::new(),
            notes: Vec::new(),
            reads: false,
        };
        compiled.insert(request.clone(), artifact.clone());
        Ok(artifact)
    }

    fn after_early_end(&self, ended: &Ended) -> Result<Aftermath, Vec<Diagnostic>> {
        Ok(Aftermath {
            lineage: ended.request.lineage.clone(),
            place: ended.location.as_ref().map(|_| Place {
                line: 1,
                text: ended.request.source.clone(),
            }),
        })
    }
}
