//! `%time`, `%%time`, `%timeit`, `%%timeit`; over Rust of the notebook or over a `%px`.

use std::time::Duration;

use tokio::time::Instant;

use super::cell::Call;
use super::wait::{GRACE, at};
use super::{Engines, How, Magics, Notebook};
use crate::cell::{Code, Piece, parse_code};
use crate::error::Error;
use crate::event::{MimeBundle, Shown, plain, text_of};
use crate::merge::{Layout, Merger};
use crate::options::{self, PxArgs, Signal, TimeArgs, TimeitArgs};
use crate::table::{self, Which};
use crate::targets::Targets;
use crate::timeit::{self, Timer, Times, Timing};

/// Finds wrong options before anything has run.
pub(super) fn check(call: &Call) -> Result<(), Error> {
    let code = match (call.which_timed(), &call.body) {
        (Which::Timeit, None) => call.split::<TimeitArgs>()?.1,
        (Which::Timeit, Some(body)) => {
            options::parse_before_code::<TimeitArgs>(&call.name, &call.arguments.text)?;
            body.clone()
        }
        (_, None) => call.split::<TimeArgs>()?.1,
        (_, Some(body)) => {
            no_code_in_line(call)?;
            body.clone()
        }
    };
    if code.is_blank() {
        return Err(Error::NoCode {
            magic: call.name.clone(),
        });
    }
    Ok(())
}

fn no_code_in_line(call: &Call) -> Result<(), Error> {
    if call.arguments.text.is_empty() {
        return Ok(());
    }
    Err(Error::CodeInLine {
        magic: call.name.clone(),
        code: call.arguments.text.clone(),
    })
}

impl Call {
    fn which_timed(&self) -> Which {
        table::find(&self.name).map_or(Which::Time, |magic| magic.which)
    }

    fn is(&self, which: Which) -> bool {
        table::find(&self.name).is_some_and(|magic| magic.which == which)
    }

    /// The `%px` that this is, with its options and code.
    fn px(&self) -> Result<(PxArgs, Code), Error> {
        match table::find(&self.name).map(|magic| magic.which) {
            Some(Which::Px) => self.split(),
            _ => Err(Error::CodeInLine {
                magic: "%time".to_owned(),
                code: self.name.clone(),
            }),
        }
    }
}

/// A piece of what is timed, if it is a magic.
fn call_of(piece: &Piece) -> Option<Call> {
    match piece {
        Piece::Code(_) => None,
        Piece::Line(magic) => Some(magic.clone().into()),
        Piece::Cell(magic) => Some(magic.clone().into()),
    }
}

impl Magics {
    pub(super) async fn time(
        &mut self,
        call: &Call,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<Option<MimeBundle>, Error> {
        check(call)?;
        let code = match &call.body {
            Some(body) => body.clone(),
            None => call.split::<TimeArgs>()?.1,
        };
        let pieces = parse_code(&code, &|text| notebook.at_boundary(text));
        let mut total = Times {
            cpu: Some((Duration::ZERO, Duration::ZERO)),
            ..Times::default()
        };
        let mut value = None;
        for piece in &pieces {
            match (piece, call_of(piece)) {
                (Piece::Code(code), _) if code.is_blank() => {}
                (Piece::Code(code), _) if !self.autopx => {
                    let evaluated = notebook.evaluate(code).await?;
                    value = evaluated.value;
                    add(&mut total, evaluated.times);
                }
                (_, Some(call)) if call.is(Which::Parallel) => {
                    // As below, what has to be started first is no part of the time.
                    let (options, _) = super::parallel::check(&call)?;
                    let wanted = options.targets.as_deref();
                    self.reach(&call.name, wanted, engines, notebook).await?;
                    let evaluated = self.parallel(&call, engines, notebook).await?;
                    value = evaluated.value;
                    add(&mut total, evaluated.times);
                }
                (piece, call) => {
                    let (options, code) = match (piece, call) {
                        (Piece::Code(code), _) => (PxArgs::default(), code.clone()),
                        (_, Some(call)) => call.px()?,
                        (_, None) => continue,
                    };
                    // A cluster that has to be started first is no part of the time.
                    let wanted = options.exec.targets.as_deref();
                    self.reach("%px", wanted, engines, notebook).await?;
                    let started = Instant::now();
                    let ran = self.px("%px", options, code, engines, notebook).await;
                    let wall = started.elapsed();
                    add(
                        &mut total,
                        Times {
                            wall,
                            ..Times::default()
                        },
                    );
                    value = match ran {
                        Ok(value) => value,
                        Err(error) => {
                            notebook.show(Shown::stdout(total.report()));
                            return Err(error);
                        }
                    };
                }
            }
        }
        notebook.show(Shown::stdout(total.report()));
        Ok(value)
    }

    pub(super) async fn timeit(
        &mut self,
        call: &Call,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<Option<MimeBundle>, Error> {
        check(call)?;
        let line = &call.arguments.text;
        let (options, at) = options::parse_before_code::<TimeitArgs>(&call.name, line)?;
        let (mut code, setup) = match &call.body {
            Some(body) => (body.clone(), line.get(at..).unwrap_or_default()),
            None => (call.arguments.from_byte(at), ""),
        };
        let own = call.written.strip_suffix(code.text.trim_end());
        code.magic = own.unwrap_or(&call.written).trim_end().to_owned();
        let pieces = parse_code(&code, &|text| notebook.at_boundary(text));
        let magics: Vec<Call> = pieces.iter().filter_map(call_of).collect();
        let is_blank = |piece: &Piece| match piece {
            Piece::Code(code) => code.is_blank(),
            _ => true,
        };
        let (timing, compile) = match magics.as_slice() {
            [] if !self.autopx => rust(&code, setup, &options, notebook).await?,
            // Engines run the code as it is: there is no place for a setup.
            _ if !setup.trim().is_empty() => {
                return Err(Error::CodeInLine {
                    magic: call.name.clone(),
                    code: setup.to_owned(),
                });
            }
            [] => {
                self.fan_out(PxArgs::default(), code, &options, engines, notebook)
                    .await?
            }
            [px] if pieces.iter().all(is_blank) => {
                let (px, code) = px.px()?;
                self.fan_out(px, code, &options, engines, notebook).await?
            }
            [first, ..] => {
                return Err(Error::CodeInLine {
                    magic: call.name.clone(),
                    code: first.name.clone(),
                });
            }
        };
        if !options.q {
            notebook.show(Shown::stdout(timing.report(compile)));
        }
        if let Some(name) = &options.v {
            let code = Code {
                text: format!("let {name}: Vec<f64> = vec!{:?};", timing.timings()),
                line: 1,
                ..Code::default()
            };
            notebook.evaluate(&code).await?;
        }
        Ok(options
            .o
            .then(|| plain(format!("<TimeitResult : {timing}>"))))
    }

    /// Times a `%px`: from the request to the last answer.
    async fn fan_out(
        &mut self,
        px: PxArgs,
        code: Code,
        options: &TimeitArgs,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<(Timing, Duration), Error> {
        if code.is_blank() {
            return Err(Error::NoCode {
                magic: "%px".to_owned(),
            });
        }
        let wanted = px.exec.targets.as_deref();
        let targets = self.reach("%px", wanted, engines, notebook).await?;
        let mut timer = FanOut {
            targets,
            code,
            engines,
            notebook,
        };
        // The first run compiles; the others find the artifact.
        let first = timer.time(1).await?;
        let timing = timeit::measure(&mut timer, options).await?;
        let typical = Duration::try_from_secs_f64(timing.average()).unwrap_or(first);
        Ok((timing, first.saturating_sub(typical)))
    }
}

fn add(total: &mut Times, times: Times) {
    total.compile += times.compile;
    total.wall += times.wall;
    total.cpu = match (total.cpu, times.cpu) {
        (Some((user, system)), Some((more_user, more_system))) => {
            Some((user + more_user, system + more_system))
        }
        _ => None,
    };
}

/// Times Rust of the notebook: one snippet, compiled once, holds all loops.
async fn rust(
    code: &Code,
    setup: &str,
    options: &TimeitArgs,
    notebook: &mut impl Notebook,
) -> Result<(Timing, Duration), Error> {
    let evaluated = notebook
        .evaluate(&timeit::snippet(code, setup, options))
        .await?;
    let said = evaluated.value.as_ref().map(text_of).unwrap_or_default();
    let timing = timeit::read(said, options.p).ok_or_else(|| Error::Timings {
        said: said.to_owned(),
    })?;
    Ok((timing, evaluated.times.compile))
}

/// Runs a snippet on engines, and waits for all, again and again.
struct FanOut<'a, E, N> {
    targets: Targets,
    code: Code,
    engines: &'a mut E,
    notebook: &'a mut N,
}

impl<E: Engines, N: Notebook> Timer for FanOut<'_, E, N> {
    type Error = Error;

    async fn time(&mut self, loops: u64) -> Result<Duration, Error> {
        let started = Instant::now();
        for _ in 0..loops {
            self.once().await?;
        }
        Ok(started.elapsed())
    }
}

impl<E: Engines, N: Notebook> FanOut<'_, E, N> {
    async fn once(&mut self) -> Result<(), Error> {
        let how = How { silent: true };
        let mut run = tokio::select! {
            run = self.engines.execute(&self.targets.ids, &self.code, how) => run?,
            () = self.notebook.interrupted() => return Err(Error::Interrupted { engines: Vec::new() }),
        };
        let layout = Layout {
            live: false,
            grouping: options::Grouping::Type,
        };
        let mut merger = Merger::new(&self.targets, layout, run.id);
        // Set by an interrupt: engines have so long to end.
        let mut deadline: Option<Instant> = None;
        while !merger.is_done() {
            tokio::select! {
                biased;
                () = self.notebook.interrupted(), if deadline.is_none() => {
                    self.engines.signal(&merger.pending(), Signal::INT).await?;
                    deadline = Some(Instant::now() + GRACE);
                }
                () = at(deadline) => break,
                event = run.events.recv() => match event {
                    Some((engine, event)) => drop(merger.on_event(engine, event)),
                    None => for engine in merger.pending() {
                        let reason = "the connection to it ended".to_owned();
                        merger.on_event(engine, crate::EngineEvent::Lost { reason });
                    },
                }
            }
        }
        if deadline.is_some() {
            return Err(Error::Interrupted {
                engines: merger.pending(),
            });
        }
        match merger.failure() {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }
}
