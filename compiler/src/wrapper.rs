//! What cargo runs in rustc's place for evcxr's crate: rewrites the source, looks in the cache, compiles.
//!
//! It is the `chorus` binary under the name [`NAME`] (a link in the session's folder), named to cargo by
//! `RUSTC_WORKSPACE_WRAPPER`, which concerns the notebook's crate only: dependencies are compiled as ever.
//! [`Plan`], a small file that the session writes before each call, says what is wanted.

use crate::amendments::ASKED;
use crate::crates::{self, Externs};
use crate::inputs::Inputs;
use crate::rewrite::{self, Body, Macro};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

/// The file name under which the binary acts as this wrapper.
pub const NAME: &str = "chorus-rustc";

/// The environment variable that names the [`Plan`]'s file.
pub(crate) const PLAN: &str = "CHORUS_PLAN";

/// The name of evcxr's crate.
const CRATE: &str = "ctx";

/// What cargo wants of it.
const EMIT: &str = "--emit=dep-info,link";

/// Nobody is shown warnings, and evcxr would take them for errors.
const NO_WARNINGS: &str = "-Awarnings";

/// How much of a compile is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Effort {
    /// All of it. evcxr is told that it failed, so that its state stays what it was.
    #[default]
    Compile,
    /// As far as rustc finds errors. evcxr is told how it went, and learns from errors what a snippet needs.
    Check,
    /// Compile nothing and tell evcxr that all is well.
    DryRun,
}

/// What the session wants of the next compiles.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The number of the snippet, by which a panic's location finds its source: the source is called
    /// `chorus-<number>/lib.rs`.
    pub(crate) number: u64,
    /// How much of a compile it takes.
    pub(crate) effort: Effort,
    /// See [`rewrite::rewrite`].
    pub(crate) display: bool,
    /// Whether evcxr has panics caught.
    pub(crate) catches: bool,
    /// Whether an error is told to people. evcxr then compiles once more for the sake of its words.
    pub(crate) decisive: bool,
    /// The macros that the snippet and what it reaches define.
    pub(crate) macros: Vec<Macro>,
    /// The paths of traits that types of variables are written with.
    pub(crate) traits: BTreeMap<String, String>,
    /// Where [`Effort::Compile`] names the shared object that it has made.
    pub(crate) product: PathBuf,
    /// Where compiled snippets are kept.
    pub(crate) cache: PathBuf,
    /// The folder of the support library for `rustc`.
    pub(crate) support: PathBuf,
    /// The rustc that `support` was compiled by.
    pub(crate) rustc: PathBuf,
    /// The support library's source, to compile it for another toolchain.
    pub(crate) support_source: PathBuf,
    /// The crates that `rustc` may be told of, once they are there.
    pub(crate) crates: Option<Externs>,
    /// Whether the namespace has crates that may change without their names changing.
    pub(crate) has_local: bool,
}

impl Plan {
    fn style(&self) -> rewrite::Style<'_> {
        rewrite::Style {
            display: self.display,
            macros: &self.macros,
            traits: &self.traits,
        }
    }

    /// Where rustc's reports of compiles that failed are, a line of JSON each.
    pub(crate) fn reports(&self) -> PathBuf {
        self.product.with_extension("reports")
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }

    fn read(path: &Path) -> io::Result<Plan> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

/// A shared object that was made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) artifact: PathBuf,
    /// What its compile read; `None` if that can't be told, so that it can't be used again.
    pub(crate) inputs: Option<Inputs>,
    /// What the user's own crates were compiled to, by name; see [`local_crates`].
    pub(crate) local: BTreeMap<String, String>,
}

impl Kept {
    /// What a file says of one that can be used now.
    fn read(path: &Path) -> io::Result<Option<Kept>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let kept: Kept = serde_json::from_slice(&bytes)?;
        let holds = kept.inputs.as_ref();
        let holds = holds.is_some_and(|inputs| inputs.hold(&BTreeMap::new()));
        let holds = holds && kept.artifact.exists();
        Ok(holds.then_some(kept))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }
}

/// Removes a shared object from the session's cache.
pub(crate) fn forget(artifact: &Path) {
    let record = artifact.with_extension("").with_extension("");
    for path in [artifact, &record] {
        if let Err(error) = fs::remove_file(path) {
            tracing::debug!(%error, "it stays until the session ends");
        }
    }
}

/// Acts as rustc for the arguments of this process.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(rustc) = arguments.next() else {
        eprintln!("{NAME}: cargo calls this, with a rustc and its arguments");
        return ExitCode::FAILURE;
    };
    let arguments: Vec<OsString> = arguments.collect();
    match snippet(&rustc, &arguments) {
        Ok(Some(code)) => code,
        Ok(None) => {
            let mut command = Command::new(&rustc);
            match checked(&rustc, &arguments) {
                Some(checked) => checked.apply_to(&mut command),
                None => drop(command.args(&arguments)),
            }
            let error = command.exec();
            eprintln!("{NAME}: {}: {error}", rustc.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Compiles a snippet, or says that this is none.
fn snippet(rustc: &OsStr, arguments: &[OsString]) -> io::Result<Option<ExitCode>> {
    let Some(plan) = std::env::var_os(PLAN) else {
        return Ok(None);
    };
    let Some(call) = Call::of(arguments) else {
        return Ok(None);
    };
    let plan = Plan::read(Path::new(&plan))?;
    let source = fs::read_to_string(&call.source)?;
    let externs = plan
        .crates
        .as_ref()
        .filter(|_| Path::new(rustc) == plan.rustc);
    if plan.effort == Effort::DryRun {
        // Derives are expanded to find what the source depends on.
        let arguments = with_crates(arguments, &source, externs);
        return dry_run(rustc, &arguments, &call).map(Some);
    }
    let Some(rewritten) = rewrite::rewrite(&source, &plan.style()) else {
        return Ok(None);
    };
    let support = if Path::new(rustc) == plan.rustc {
        plan.support.clone()
    } else {
        crate::support::ensure(Path::new(rustc), &fs::read_to_string(&plan.support_source)?)
            .map_err(io::Error::other)?
            .folder
    };

    let arguments = &with_crates(arguments, &rewritten.source, externs);

    fs::write(&call.source, &rewritten.source)?;
    // Without the closure that catches panics evcxr compiles for the sake of the errors' words.
    let uncaught = Body::Runs { catches: false };
    let for_words = plan.catches && rewritten.body == uncaught;
    let compiles = plan.effort == Effort::Compile && !for_words;
    if plan.effort == Effort::Compile && for_words && !plan.decisive {
        replace_by_nothing(&call.out_dir.join(format!("lib{CRATE}.so")))?;
        return Ok(Some(ExitCode::SUCCESS));
    }
    let record = plan.cache.join(key(rustc, arguments, &rewritten.source));
    if compiles && let Some(kept) = Kept::read(&record)? {
        kept.write(&plan.product)?;
        return Ok(Some(ExitCode::FAILURE));
    }
    let began = SystemTime::now();
    let product = call.out_dir.join(format!("lib{CRATE}.so"));
    // A runtime may have loaded what lies there, and linkers differ in whether they write into a file or make a new one.
    remove(&product)?;
    let checking;
    let arguments = match compiles {
        true => arguments,
        false => {
            checking = without_link(arguments, "--emit=dep-info,metadata");
            &checking
        }
    };
    let output = call.command(rustc, arguments, &plan, &support).output()?;
    if output.status.success() {
        if !compiles {
            replace_by_nothing(&product)?;
            return Ok(Some(ExitCode::SUCCESS));
        }
        fs::create_dir_all(&plan.cache)?;
        let dep_info = fs::read_to_string(call.out_dir.join(format!("{CRATE}.d")))?;
        let folder = std::env::current_dir()?;
        // What can't be looked at can't be compared.
        let inputs = Inputs::of_dep_info(&dep_info, &folder, &call.source, began)
            .ok()
            .flatten();
        // The loader knows a file by its name, so what is made anew has another one.
        let unique = began
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let kept = Kept {
            artifact: record.with_extension(format!("{unique}.so")),
            inputs,
            local: match plan.has_local {
                true => local_crates(arguments)?,
                false => BTreeMap::new(),
            },
        };
        fs::rename(&product, &kept.artifact)?;
        kept.write(&plan.product)?;
        kept.write(&record)?;
        return Ok(Some(ExitCode::FAILURE));
    }
    let mut stderr = io::stderr().lock();
    let mut reports = fs::File::options()
        .create(true)
        .append(true)
        .open(plan.reports())?;
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        let line = rewritten.relocate(line);
        writeln!(stderr, "{line}")?;
        writeln!(reports, "{line}")?;
    }
    Ok(Some(match output.status.code() {
        Some(code) => ExitCode::from(code.clamp(1, 255) as u8),
        None => ExitCode::FAILURE,
    }))
}

/// The arguments with which rustc checks a cell for evcxr, which wants its words on why a variable's type is unknown; nothing if it is asked
/// for something else.
fn checked(rustc: &OsStr, arguments: &[OsString]) -> Option<Checked> {
    let plan = Plan::read(Path::new(&std::env::var_os(PLAN)?)).ok()?;
    if after(arguments, "--crate-name")? != CRATE || Path::new(rustc) != plan.rustc {
        return None;
    }
    let path = source(arguments)?;
    let source = rewrite::importing(&fs::read_to_string(path).ok()?, &plan.macros);
    fs::write(path, &source).ok()?;
    let mut arguments = with_crates(arguments, &source, plan.crates.as_ref());
    arguments.push(NO_WARNINGS.into());
    Some(Checked {
        arguments,
        asks_for_type: source.contains(ASKED),
    })
}

/// How rustc checks a cell for evcxr.
struct Checked {
    arguments: Vec<OsString>,
    /// Whether its error is to name a type so that it can be written.
    asks_for_type: bool,
}

impl Checked {
    fn apply_to(&self, command: &mut Command) {
        command.args(&self.arguments);
        if self.asks_for_type {
            // Types with their paths, of whatever length. Nothing is compiled by this call.
            command.args(["--verbose", "-Ztrim-diagnostic-paths=no"]);
            command.env("RUSTC_BOOTSTRAP", "1");
        }
    }
}

/// Leaves an empty product and true dependency information.
fn dry_run(rustc: &OsStr, arguments: &[OsString], call: &Call) -> io::Result<ExitCode> {
    replace_by_nothing(&call.out_dir.join(format!("lib{CRATE}.so")))?;
    let output = Command::new(rustc)
        .args(without_link(arguments, "--emit=dep-info"))
        .output()?;
    Ok(if output.status.success() {
        ExitCode::SUCCESS
    } else {
        io::stderr().write_all(&output.stderr)?;
        ExitCode::FAILURE
    })
}

/// The arguments with another wish for what rustc emits.
fn without_link(arguments: &[OsString], emit: &str) -> Vec<OsString> {
    let other = |argument: &OsString| match argument == EMIT {
        true => OsString::from(emit),
        false => argument.clone(),
    };
    arguments.iter().map(other).collect()
}

/// cargo's arguments, with the crates for sources that name them in the place of their signposts. Those that cargo tells of itself stay.
fn with_crates(arguments: &[OsString], source: &str, externs: Option<&Externs>) -> Vec<OsString> {
    let mut found: Vec<OsString> = Vec::with_capacity(arguments.len());
    let mut told = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument != "--extern" {
            found.push(argument.clone());
            continue;
        }
        let Some(external) = rest.next() else { break };
        let text = external.to_string_lossy();
        let (name, file) = text.split_once('=').unwrap_or((&text, ""));
        let is_signpost = Path::new(file)
            .file_name()
            .is_some_and(|file| file.to_string_lossy().contains(crates::SIGNPOST));
        if !is_signpost {
            told.push(name.to_owned());
            found.extend([argument.clone(), external.clone()]);
        }
    }
    let is_told = |name: &str| told.iter().any(|told| told == name);
    let lacks_some = crates::words(source).any_but(is_told);
    let Some(externs) = externs.filter(|_| lacks_some) else {
        return found;
    };
    for (name, file) in [("chorus", &externs.chorus), ("serde", &externs.serde)] {
        if is_told(name) {
            continue;
        }
        let mut external = OsString::from(name);
        external.push("=");
        external.push(file);
        found.extend(["--extern".into(), external]);
    }
    let mut search = OsString::from("dependency=");
    search.push(&externs.folder);
    found.extend(["-L".into(), search]);
    found
}

/// Leaves an empty file for cargo to find; what was there may be a link to something kept.
fn replace_by_nothing(product: &Path) -> io::Result<()> {
    remove(product)?;
    fs::write(product, b"")
}

/// Removes a file, if it's there.
fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The identity of a compile: what is compiled, by what, and how. A dependency that was compiled anew keeps its path, not its time.
fn key(rustc: &OsStr, arguments: &[OsString], source: &str) -> String {
    let mut hash = Sha256::new();
    for part in [rustc]
        .into_iter()
        .chain(arguments.iter().map(OsString::as_os_str))
    {
        hash.update(part.as_encoded_bytes());
        hash.update([0]);
        let file = part.to_str().and_then(|part| part.split_once('='));
        if let Some((_, file)) = file
            && [".rlib", ".rmeta", ".so"]
                .iter()
                .any(|end| file.ends_with(end))
            && let Ok(metadata) = fs::metadata(file)
            && let Ok(modified) = metadata.modified()
        {
            hash.update(format!("{} {modified:?}", metadata.len()));
        }
    }
    hash.update(source);
    format!("{}.json", hex::encode(hash.finalize()))
}

/// The hashes of the crates among these arguments that come from a folder of the user's, by name.
fn local_crates(arguments: &[OsString]) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let externs = arguments
        .windows(2)
        .filter(|pair| pair[0] == "--extern")
        .filter_map(|pair| pair[1].to_str()?.split_once('='));
    for (name, file) in externs {
        let library = Path::new(file);
        let sources = library.file_stem().and_then(|stem| {
            let stem = stem.to_str()?;
            let dep_info = format!("{}.d", stem.strip_prefix("lib").unwrap_or(stem));
            fs::read_to_string(library.with_file_name(dep_info)).ok()
        });
        let is_published = sources.is_none_or(|sources| {
            // Where cargo puts what it downloads.
            ["/registry/src/", "/git/checkouts/"]
                .iter()
                .any(|folder| sources.contains(folder))
        });
        if !is_published {
            found.insert(
                name.to_owned(),
                hex::encode(Sha256::digest(fs::read(library)?)),
            );
        }
    }
    Ok(found)
}

/// What follows a flag.
fn after<'a>(arguments: &'a [OsString], flag: &str) -> Option<&'a OsString> {
    let at = arguments.iter().position(|argument| argument == flag)?;
    arguments.get(at + 1)
}

/// The source file.
fn source(arguments: &[OsString]) -> Option<&OsString> {
    arguments
        .iter()
        .find(|argument| argument.as_encoded_bytes().ends_with(b"lib.rs"))
}

/// The parts of rustc's command line that matter here.
#[derive(Debug)]
struct Call {
    source: PathBuf,
    out_dir: PathBuf,
}

impl Call {
    /// `None` unless these arguments compile evcxr's crate to a shared object.
    fn of(arguments: &[OsString]) -> Option<Call> {
        if after(arguments, "--crate-name")? != CRATE
            || after(arguments, "--crate-type")? != "cdylib"
        {
            return None;
        }
        arguments
            .iter()
            .any(|argument| argument == EMIT)
            .then_some(())?;
        Some(Call {
            source: source(arguments)?.into(),
            out_dir: after(arguments, "--out-dir")?.into(),
        })
    }

    fn command(
        &self,
        rustc: &OsStr,
        arguments: &[OsString],
        plan: &Plan,
        support: &Path,
    ) -> Command {
        let mut command = Command::new(rustc);
        let mut arguments = arguments.iter().peekable();
        while let Some(argument) = arguments.next() {
            // A snippet is small and compiled once: neither incremental files nor many units pay. cargo's metadata
            // changes with every dependency, and with it the identity of the user's types, so that
            // variables of these types would be lost.
            if argument == "-C"
                && arguments.peek().is_some_and(|next| {
                    let next = next.as_encoded_bytes();
                    [
                        &b"incremental="[..],
                        b"codegen-units=",
                        b"metadata=",
                        b"strip=",
                    ]
                    .iter()
                    .any(|prefix| next.starts_with(prefix))
                })
            {
                arguments.next();
                continue;
            }
            command.arg(argument);
        }
        let mut external = OsString::from("chorus_support=");
        external.push(support.join("libchorus_support.so"));
        command
            .arg(NO_WARNINGS)
            .arg("-Ccodegen-units=1")
            .arg("-Cmetadata=chorus")
            // Three memory maps for each cell instead of five: a process may have 65,530 of them.
            .args(["-Crelro-level=off", "-Clink-arg=-Wl,-z,noseparate-code"])
            // A panic's frames are to have lines, inlined ones too.
            .arg("-Cdebuginfo=line-tables-only")
            .arg("--extern")
            .arg(external)
            .arg(format!("--remap-path-prefix=src=chorus-{}", plan.number));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(arguments: &[&str], source: &str, ready: bool) -> Vec<String> {
        let externs = Externs {
            chorus: "/c/libchorus-1.rlib".into(),
            serde: "/c/libserde-1.rlib".into(),
            folder: "/c".into(),
        };
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        with_crates(&arguments, source, ready.then_some(&externs))
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn only_sources_that_name_the_crates_are_told_of_them() {
        let signposts = [
            "lib.rs",
            "--extern",
            "chorus=/t/libchorus_signpost_chorus-1.rlib",
            "-L",
            "dependency=/t",
            "--extern",
            "serde=/t/libchorus_signpost_serde-1.rlib",
        ];
        let plain = ["lib.rs", "-L", "dependency=/t"];
        assert_eq!(
            told(&signposts, "1 + 1; ::chorus_support::x()", true),
            plain
        );
        assert_eq!(told(&signposts, "use chorus::Client;", false), plain);
        let crates = [
            "--extern",
            "chorus=/c/libchorus-1.rlib",
            "--extern",
            "serde=/c/libserde-1.rlib",
            "-L",
            "dependency=/c",
        ];
        let all: Vec<&str> = plain.iter().chain(&crates).copied().collect();
        assert_eq!(told(&signposts, "use chorus::Client;", true), all);
    }

    #[test]
    fn a_users_own_crates_stay_as_they_are() {
        let own = ["--extern", "serde=/t/libserde-2.rlib"];
        assert_eq!(told(&own, "serde::x()", true), own);
        let ours = [
            "--extern",
            "chorus=/c/libchorus-1.rlib",
            "-L",
            "dependency=/c",
        ];
        let both: Vec<&str> = own.iter().chain(&ours).copied().collect();
        assert_eq!(told(&own, "chorus::x()", true), both);
    }
}
