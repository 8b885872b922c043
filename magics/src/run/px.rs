//! `%px`, `%pxresult`, `%pxconfig`.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::wait::{Patience, wait};
use super::{Engines, How, Magics, Notebook, names};
use crate::cell::Code;
use crate::error::Error;
use crate::event::{EngineEvent, EngineId, MimeBundle, Shown, plain};
use crate::merge::{Layout, Merger};
use crate::options::{ExecArgs, PxArgs, PxConfigArgs, PxResultArgs, Signal};
use crate::targets::{self, Targets, ranges};

/// How long a cluster may take to say which engines it has.
const ANSWER: Duration = Duration::from_secs(2);

/// What `%px` does unless told otherwise; ipyparallel's defaults.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub(super) targets: String,
    block: bool,
    stream: bool,
    verbose: bool,
    pub(super) progress_after: f64,
    signal: Signal,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults {
            targets: "all".to_owned(),
            block: true,
            stream: true,
            verbose: false,
            progress_after: 2.0,
            signal: Signal::INT,
        }
    }
}

impl Defaults {
    fn apply(&mut self, options: &ExecArgs) {
        if let Some(targets) = &options.targets {
            self.targets.clone_from(targets);
        }
        self.block = options.blocks().unwrap_or(self.block);
        self.stream = options.streams().unwrap_or(self.stream);
        self.verbose = options.speaks().unwrap_or(self.verbose);
        self.progress_after = options.progress_after.unwrap_or(self.progress_after);
        self.signal = options.signal_on_interrupt.unwrap_or(self.signal);
    }

    fn patience(&self) -> Patience {
        Patience {
            // Also when it is not a number, or longer than a Duration can be.
            progress_after: Duration::try_from_secs_f64(self.progress_after).ok(),
            signal: Some(self.signal).filter(|signal| signal.0 != 0),
        }
    }
}

/// The last `%px`, which `%pxresult` recalls.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) merger: Merger,
    pub(super) events: mpsc::UnboundedReceiver<(EngineId, EngineEvent)>,
    /// The variable to bind, when all have ended.
    out: Option<String>,
    code: String,
}

impl Magics {
    /// Runs code on engines; the value is what stands for the result when it does not wait.
    pub(super) async fn px(
        &mut self,
        magic: &str,
        options: PxArgs,
        code: Code,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<Option<MimeBundle>, Error> {
        if code.is_blank() {
            return Err(Error::NoCode {
                magic: magic.to_owned(),
            });
        }
        let mut how = self.defaults.clone();
        how.apply(&options.exec);
        let wanted = options.exec.targets.as_deref();
        let targets = self.reach(magic, wanted, engines, notebook).await?;
        if how.verbose {
            let base = if how.block && !options.local {
                "Parallel"
            } else {
                "Async parallel"
            };
            notebook.show(Shown::stdout(format!(
                "{base} execution on engine(s): {targets}\n"
            )));
        }
        let grouping = options.output.grouping();
        let layout = Layout {
            // Whoever asks for a layout gets it.
            live: how.block
                && !options.local
                && options
                    .exec
                    .streams()
                    .unwrap_or(how.stream && grouping.is_none()),
            grouping: grouping.unwrap_or_default(),
        };
        let run = tokio::select! {
            run = engines.execute(&targets.ids, &code, How::default()) => run?,
            () = notebook.interrupted() => return Err(Error::Interrupted { engines: Vec::new() }),
        };
        let mut merger = Merger::new(&targets, layout, run.id);
        if options.output.out.is_some() {
            merger.be_brief();
        }
        let last = self.last.insert(Last {
            merger,
            events: run.events,
            out: options.output.out.clone(),
            code: code.text.clone(),
        });
        let mut here = Ok(());
        if options.local {
            match notebook.evaluate(&code).await {
                Ok(evaluated) => {
                    if let Some(data) = evaluated.value {
                        notebook.show(Shown::Display {
                            data,
                            metadata: serde_json::Map::new(),
                            display_id: None,
                        });
                    }
                }
                Err(failure) => here = Err(Error::Failed(failure)),
            }
        }
        if !how.block {
            here?;
            return Ok(Some(plain("<AsyncResult(%px): pending>")));
        }
        let waited = wait(last, how.patience(), engines, notebook).await;
        for shown in last.merger.finish() {
            notebook.show(shown);
        }
        waited?;
        let ended = self.settle(notebook).await;
        here?;
        ended.map(|()| None)
    }

    /// What is to be done once all engines have ended: remember names, bind the results, tell the errors.
    async fn settle(&mut self, notebook: &mut impl Notebook) -> Result<(), Error> {
        let Some(last) = &mut self.last else {
            return Ok(());
        };
        let out = last.out.take();
        if let Some(mut failure) = last.merger.failure() {
            if let Some(name) = out {
                failure.traceback.push(format!(
                    "`{name}` is not bound, since not every engine has a result."
                ));
            }
            return Err(failure.into());
        }
        self.names.extend(names::introduced(&last.code));
        match out {
            Some(name) => bind(&name, &last.merger.results(), notebook).await,
            None => Ok(()),
        }
    }

    /// The engines that a magic is for, which was given these after `-t`. Starts a cluster if there is none.
    pub(super) async fn reach(
        &self,
        magic: &str,
        wanted: Option<&str>,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<Targets, Error> {
        let ids = match known(engines).await? {
            Some(ids) => ids,
            None => {
                notebook.show(Shown::stdout(
                    "No cluster is running: starting one on this machine, with one engine a core.\n",
                ));
                let cluster = tokio::select! {
                    cluster = engines.start(None) => cluster?,
                    () = notebook.interrupted() => {
                        return Err(Error::Interrupted { engines: Vec::new() });
                    }
                };
                notebook.show(Shown::stdout(format!(
                    "{} `%cluster stop` ends it.\n",
                    super::cluster::up(&cluster)
                )));
                cluster.ids
            }
        };
        if ids.is_empty() {
            return Err(Error::NoEngines);
        }
        targets::resolve(wanted.unwrap_or(&self.defaults.targets), &ids).map_err(|source| {
            Error::Targets {
                magic: magic.to_owned(),
                source,
            }
        })
    }

    pub(super) async fn pxresult(
        &mut self,
        options: PxResultArgs,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<(), Error> {
        let last = self.last.as_mut().ok_or(Error::NoResult)?;
        let grouping = options.output.grouping().unwrap_or_default();
        last.merger.set_layout(Layout {
            live: false,
            grouping,
        });
        // An interrupt ends the wait and leaves the engines alone, as in ipyparallel.
        let patience = Patience {
            signal: None,
            ..self.defaults.patience()
        };
        wait(last, patience, engines, notebook).await?;
        match options.output.out {
            Some(name) => last.out = Some(name),
            None => {
                for shown in last.merger.all_again(grouping) {
                    notebook.show(shown);
                }
            }
        }
        self.settle(notebook).await
    }

    pub(super) async fn pxconfig(
        &mut self,
        options: PxConfigArgs,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<(), Error> {
        if options == PxConfigArgs::default() {
            notebook.show(Shown::stdout(self.settings()));
            return Ok(());
        }
        // Without a cluster nobody can tell which engines there will be.
        if let Some(text) = &options.exec.targets
            && let Some(ids) = known(engines).await?
        {
            targets::resolve(text, &ids).map_err(|source| Error::Targets {
                magic: "%pxconfig".to_owned(),
                source,
            })?;
        }
        self.defaults.apply(&options.exec);
        Ok(())
    }

    fn settings(&self) -> String {
        let Defaults {
            targets,
            block,
            stream,
            verbose,
            progress_after,
            signal,
        } = &self.defaults;
        let switch = |on: bool, name: &str, off: &str| format!("--{}", if on { name } else { off });
        format!(
            "--targets {targets} {} {} {} --progress-after {progress_after} --signal-on-interrupt {signal}\n",
            switch(*block, "block", "noblock"),
            switch(*stream, "stream", "no-stream"),
            switch(*verbose, "verbose", "no-verbose"),
        )
    }
}

/// The engines there are; `None` without a cluster.
pub(super) async fn known(engines: &mut impl Engines) -> Result<Option<Vec<EngineId>>, Error> {
    match timeout(ANSWER, engines.ids()).await {
        Ok(ids) => Ok(ids?),
        Err(_) => Err(silent()),
    }
}

pub(super) fn silent() -> Error {
    Error::Silent {
        seconds: ANSWER.as_secs(),
    }
}

/// `let name: Vec<String> = vec![..];`
async fn bind(name: &str, results: &[String], notebook: &mut impl Notebook) -> Result<(), Error> {
    // A string's Debug text is the literal that makes it.
    let texts: Vec<String> = results
        .iter()
        .map(|text| format!("{text:?}.to_owned()"))
        .collect();
    let code = Code {
        text: format!("let {name}: Vec<String> = vec![{}];", texts.join(", ")),
        line: 1,
        ..Code::default()
    };
    notebook.evaluate(&code).await?;
    Ok(())
}

/// The engines of a list, for people: `2 engines: 0,1`.
pub(super) fn engines_in_words(ids: &[EngineId]) -> String {
    match ids {
        [] => "no engines".to_owned(),
        [id] => format!("1 engine: {id}"),
        ids => format!("{} engines: {}", ids.len(), ranges(ids)),
    }
}
