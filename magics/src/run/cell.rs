//! Runs a cell's pieces in their order; the dispatch of magics.

use super::{Engines, Magics, Notebook};
use crate::cell::{self, AtBoundary, CellMagic, Code, LineMagic, Piece};
use crate::error::Error;
use crate::event::{Failure, MimeBundle, Shown};
use crate::options::{
    self, CheckpointArgs, ClusterArgs, GatherArgs, NoArgs, PushArgs, PxArgs, WhoArgs,
};
use crate::table::{self, Which};

/// A magic as it is called, line or cell.
#[derive(Debug)]
pub(super) struct Call {
    /// With its sign.
    pub(super) name: String,
    pub(super) arguments: Code,
    /// The whole line.
    pub(super) written: String,
    /// Of a cell magic.
    pub(super) body: Option<Code>,
}

impl From<LineMagic> for Call {
    fn from(magic: LineMagic) -> Call {
        Call {
            name: magic.name,
            arguments: magic.arguments,
            written: magic.written,
            body: None,
        }
    }
}

impl From<CellMagic> for Call {
    fn from(magic: CellMagic) -> Call {
        Call {
            name: magic.name,
            arguments: magic.arguments,
            written: magic.written,
            body: Some(magic.body),
        }
    }
}

impl Call {
    /// The options, and the code: what follows them in the line, or the body.
    pub(super) fn split<T: clap::Parser>(&self) -> Result<(T, Code), Error> {
        let line = &self.arguments.text;
        match &self.body {
            None => {
                let (options, at) = options::parse_before_code(&self.name, line)?;
                Ok((options, self.arguments.from_byte(at)))
            }
            Some(body) => Ok((options::parse(&self.name, line)?, body.clone())),
        }
    }

    /// The options of a magic that takes nothing else.
    pub(super) fn options<T: clap::Parser>(&self) -> Result<T, Error> {
        Ok(options::parse(&self.name, &self.arguments.text)?)
    }

    /// The options around the names of `%push` and its like.
    pub(super) fn around<T: clap::Parser>(&self) -> Result<T, Error> {
        Ok(options::parse_around(&self.name, &self.arguments.text)?)
    }

    fn which(&self) -> Result<Which, Error> {
        table::find(&self.name)
            .map(|magic| magic.which)
            .ok_or_else(|| Error::UnknownMagic {
                name: self.name.clone(),
                line: self.arguments.line,
                nearest: table::nearest(&self.name),
            })
    }
}

/// Whether a cell only asks what is known without running anything: help, lists, whether checkpoints are made. Such a cell need not wait
/// for another that runs.
pub fn only_asks(cell: &str, at_boundary: AtBoundary<'_>) -> bool {
    let asks = |piece: &Piece| match piece {
        Piece::Code(code) => code.is_blank(),
        Piece::Line(magic) if magic.name.ends_with('?') => true,
        Piece::Line(magic) => table::find(&magic.name).is_some_and(|row| {
            matches!(
                row.which,
                Which::Checkpoint | Which::LsMagic | Which::Who | Which::Whos
            )
        }),
        Piece::Cell(_) => false,
    };
    let pieces = cell::parse(cell, at_boundary);
    !pieces.is_empty() && pieces.iter().all(asks)
}

impl Magics {
    /// Runs a cell: shows what there is to show, gives the value of its last piece.
    ///
    /// # Errors
    /// What the user is to read. Pieces after the one that failed are not run.
    pub async fn run_cell(
        &mut self,
        cell: &str,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<Option<MimeBundle>, Failure> {
        let pieces = cell::parse(cell, &|text| notebook.at_boundary(text));
        // A misspelt name or option stops a cell before any of it has run.
        for piece in &pieces {
            self.check(piece).map_err(Error::into_failure)?;
        }
        let mut value = None;
        for piece in pieces {
            let ran = match piece {
                Piece::Code(code) if code.is_blank() => continue,
                Piece::Code(code) if self.autopx => {
                    self.px("%px", PxArgs::default(), code, engines, notebook)
                        .await
                }
                Piece::Code(code) => match notebook.evaluate(&code).await {
                    Ok(evaluated) => Ok(evaluated.value),
                    Err(failure) => Err(failure.into()),
                },
                Piece::Line(magic) => self.magic(magic.into(), engines, notebook).await,
                Piece::Cell(magic) => self.magic(magic.into(), engines, notebook).await,
            };
            value = ran.map_err(Error::into_failure)?;
        }
        Ok(value)
    }

    fn check(&self, piece: &Piece) -> Result<(), Error> {
        let call: Call = match piece {
            Piece::Code(_) => return Ok(()),
            Piece::Line(magic) if magic.name.ends_with('?') => return Ok(()),
            Piece::Line(magic) => magic.clone().into(),
            Piece::Cell(magic) => magic.clone().into(),
        };
        match call.which()? {
            Which::Px => call.split::<PxArgs>().map(drop),
            Which::Parallel => super::parallel::check(&call).map(drop),
            Which::Push | Which::Scatter => call.around::<PushArgs>().map(drop),
            Which::Pull | Which::Gather => call.around::<GatherArgs>().map(drop),
            Which::PxResult => call.options::<options::PxResultArgs>().map(drop),
            Which::PxConfig => call.options::<options::PxConfigArgs>().map(drop),
            Which::AutoPx | Which::LsMagic => call.options::<NoArgs>().map(drop),
            Which::Cluster => call.options::<ClusterArgs>().map(drop),
            Which::Who | Which::Whos => call.options::<WhoArgs>().map(drop),
            Which::Checkpoint => call.options::<CheckpointArgs>().map(drop),
            Which::Time | Which::Timeit => super::time::check(&call),
        }
    }

    async fn magic(
        &mut self,
        call: Call,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<Option<MimeBundle>, Error> {
        if let Some(help) = call
            .name
            .strip_suffix('?')
            .and_then(|_| table::help(&call.name))
        {
            notebook.show(Shown::stdout(help));
            return Ok(None);
        }
        match call.which()? {
            Which::Px => {
                let (options, code) = call.split()?;
                return self.px(&call.name, options, code, engines, notebook).await;
            }
            Which::Parallel => return Ok(self.parallel(&call, engines, notebook).await?.value),
            Which::Push => self.send("push", &call, engines, notebook).await?,
            Which::Scatter => self.send("scatter", &call, engines, notebook).await?,
            Which::Pull => self.fetch("pull", &call, engines, notebook).await?,
            Which::Gather => self.fetch("gather", &call, engines, notebook).await?,
            Which::PxResult => self.pxresult(call.options()?, engines, notebook).await?,
            Which::PxConfig => self.pxconfig(call.options()?, engines, notebook).await?,
            Which::AutoPx => {
                call.options::<NoArgs>()?;
                self.autopx = !self.autopx;
                let state = if self.autopx { "enabled" } else { "disabled" };
                notebook.show(Shown::stdout(format!("%autopx {state}\n")));
            }
            Which::Cluster => self.cluster(call.options()?, engines, notebook).await?,
            Which::Time => return self.time(&call, engines, notebook).await,
            Which::Timeit => return self.timeit(&call, engines, notebook).await,
            Which::Who => super::who::who(&call.options()?, notebook).await,
            Which::Whos => super::who::whos(&call.options()?, notebook).await,
            Which::Checkpoint => {
                let options: CheckpointArgs = call.options()?;
                let on = match options.state.as_deref() {
                    Some("on") => Some(true),
                    Some("off") => Some(false),
                    _ => None,
                };
                let text = notebook.checkpoint(on).await?;
                notebook.show(Shown::stdout(text));
            }
            Which::LsMagic => notebook.show(Shown::stdout(table::list())),
        }
        Ok(None)
    }
}
