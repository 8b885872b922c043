//! `%%parallel`, `%push`, `%pull`, `%scatter`, `%gather`: a cell for the notebook is [generated](crate::generate), evaluated, and what went wrong
//! is told as the magic's.

use super::cell::Call;
use super::{Engines, Evaluated, Magics, Notebook};
use crate::cell::Code;
use crate::error::Error;
use crate::event::Failure;
use crate::generate::{self, Reach};
use crate::names::List;
use crate::options::{GatherArgs, ParallelArgs, PushArgs};

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Finds wrong options, and that there is no body, before anything has run.
pub(super) fn check(call: &Call) -> Result<(ParallelArgs, Code), Error> {
    let (options, body): (ParallelArgs, Code) = call.split()?;
    if body.is_blank() {
        return Err(Error::NoCode {
            magic: call.name.clone(),
        });
    }
    Ok((options, body))
}

impl Magics {
    pub(super) async fn parallel(
        &mut self,
        call: &Call,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<Evaluated, Error> {
        let (options, body) = check(call)?;
        let wanted = options.targets.as_deref();
        self.reach(&call.name, wanted, engines, notebook).await?;
        let code = generate::parallel(&options, &self.way(wanted), &call.written, &body);
        let failure = match notebook.evaluate(&code).await {
            Ok(evaluated) => return Ok(evaluated),
            Err(failure) => failure,
        };
        let mut failure = told(&call.name, failure);
        // rustc says so of a closure, in words that differ with how the variable is used.
        if failure.ename == "compile error" && mentions(&failure, &["captur", "--with"]) {
            let variables = notebook.variables().await;
            let names = variables.iter().map(|variable| variable.name.as_str());
            let captured = generate::captured(&options, &body, names);
            failure.traceback.extend(hint(&captured, &options, &body));
        }
        Err(failure.into())
    }

    pub(super) async fn send(
        &mut self,
        method: &str,
        call: &Call,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<(), Error> {
        let options: PushArgs = call.around()?;
        let wanted = options.targets.as_deref();
        let way = self.way(wanted);
        let code = generate::send(method, &options, &way, &call.written, call.arguments.line)?;
        self.move_variables(call, wanted, &code, engines, notebook)
            .await?;
        let names = match &options.under {
            Some(List(names)) => names.iter().map(|name| name.0.clone()).collect(),
            None => (options.variables.0.iter())
                .map(|named| named.name.clone())
                .collect::<Vec<_>>(),
        };
        self.names.extend(names);
        Ok(())
    }

    pub(super) async fn fetch(
        &mut self,
        method: &str,
        call: &Call,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<(), Error> {
        let options: GatherArgs = call.around()?;
        let wanted = options.targets.as_deref();
        let untyped = (options.engine_variables.0.iter()).find(|typed| typed.type_name.is_none());
        if let Some(untyped) = untyped {
            let variables = notebook.variables().await;
            let known = variables
                .iter()
                .find(|variable| variable.name == untyped.name)
                .map(|variable| variable.type_name.as_str());
            return Err(generate::no_type(method, &untyped.name, known).into());
        }
        let way = self.way(wanted);
        let code = generate::fetch(method, &options, &way, &call.written, call.arguments.line)?;
        self.move_variables(call, wanted, &code, engines, notebook)
            .await
    }

    async fn move_variables(
        &mut self,
        call: &Call,
        wanted: Option<&str>,
        code: &Code,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<(), Error> {
        self.reach(&call.name, wanted, engines, notebook).await?;
        match notebook.evaluate(code).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(told(&call.name, failure).into()),
        }
    }

    fn way(&self, wanted: Option<&str>) -> Reach {
        Reach {
            targets: wanted.unwrap_or(&self.defaults.targets).to_owned(),
            progress_after: self.defaults.progress_after,
        }
    }
}

/// A failure of the generated cell as the magic's. (What an interrupt does to tasks is the carrier's to decide, who knows which they are.)
fn told(magic: &str, failure: Failure) -> Failure {
    if failure.ename != "error" {
        return failure;
    }
    // The cell has no `?` but those that hand on the errors of `chorus`.
    Failure {
        ename: "parallel error".to_owned(),
        traceback: vec![format!("{RED}{magic} failed{PLAIN}: {}", failure.evalue)],
        evalue: failure.evalue,
    }
}

fn mentions(failure: &Failure, words: &[&str]) -> bool {
    let all = (failure.traceback.iter()).chain([&failure.evalue]);
    let mut all = all.flat_map(|text| words.iter().map(move |word| text.contains(word)));
    all.any(|found| found)
}

/// Which variables the body would have to be given, and how.
fn hint(captured: &[(usize, &str)], options: &ParallelArgs, body: &Code) -> Vec<String> {
    if captured.is_empty() {
        return Vec::new();
    }
    let mut given: Vec<&str> = (options.with.iter())
        .flat_map(|List(with)| with)
        .map(|named| named.name.as_str())
        .collect();
    let mut lines = Vec::new();
    for (line, name) in captured {
        let text = body.text.lines().nth(line - body.line).unwrap_or_default();
        lines.push(format!("{GREEN}----> {line}{PLAIN} {text}"));
        lines.push(format!(
            "`{name}` is a variable of the notebook, and the body runs in other processes."
        ));
        given.push(name);
    }
    lines.push(format!(
        "If it is meant, give it to the body: `--with {}`.",
        given.join(",")
    ));
    lines
}
