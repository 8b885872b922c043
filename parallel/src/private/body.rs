//! The cell that `%%parallel` writes: a call of [`parallel`] and then of methods, one for each of its options.
//!
//! ```text
//! chorus::__private::parallel("all", Some(2.0)).over(&lines).with(&stop).each(|((), stop), lines| {
//!     the body, where `lines` is a part of the notebook's `lines`, and `stop` a reference to the engine's copy of it
//! }).merge(::chorus::merge::counts)?
//! ```
//!
//! Errors wait for the end: after a `?` on something whose type it doesn't know, rust-analyzer takes what follows for unreachable, and evcxr,
//! which asks it for the types of variables, would be told `!`.
//!
//! `over` and `with` have bounds of their own, so that rustc's first error is at the name that is wrong. `each` repeats what it needs of them, and
//! may have rustc say so again.

use super::parts::{Parts, Share};
use crate::client::Client;
use crate::codec::Encoded;
use crate::error::Error;
use crate::function::{self, Code};
use crate::portable::Portable;
use crate::result;
use crate::submit::Arguments;
use crate::targets::Targets;
use crate::view::{Common, Deal, Split, split_into};
use crate::wire::Piece;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

/// A `%%parallel` whose body is still to come: over `V`, with shared values of types `S`, a pair of pairs.
#[derive(Debug)]
pub struct Parallel<V, S> {
    how: Result<How, Error>,
    over: V,
    /// All shared values, one after the other, which is how pairs of pairs are encoded.
    shared: Result<Vec<u8>, Error>,
    types: PhantomData<fn() -> S>,
}

#[derive(Debug)]
struct How {
    client: Client,
    targets: Targets,
    progress_after: Option<Duration>,
    balanced: bool,
    parts: Option<usize>,
}

/// Encodes a part.
type PartOf<'a> = dyn Fn(Range<usize>, &mut Arguments) -> Result<Piece, Error> + 'a;

/// What is cut, of whose type only that of its parts is left.
pub struct Over<'a, P> {
    count: usize,
    part: Box<PartOf<'a>>,
    types: PhantomData<fn() -> P>,
}

impl<P> fmt::Debug for Over<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Over({} items)", self.count)
    }
}

/// Connects to the notebook's cluster. The targets are written as for `%px -t`; progress is shown from so many seconds on, if at all.
pub fn parallel(targets: &str, progress_after: Option<f64>) -> Parallel<(), ()> {
    Parallel::new(Client::connect(), targets, progress_after)
}

impl Parallel<(), ()> {
    /// As [`parallel`], over a connection that there is.
    pub fn through(client: Client, targets: &str, progress_after: Option<f64>) -> Self {
        Parallel::new(Ok(client), targets, progress_after)
    }

    fn new(client: Result<Client, Error>, targets: &str, progress_after: Option<f64>) -> Self {
        Parallel {
            how: client.map(|client| How {
                client,
                targets: targets.into(),
                progress_after: super::after(progress_after),
                balanced: false,
                parts: None,
            }),
            over: (),
            shared: Ok(Vec::new()),
            types: PhantomData,
        }
    }
}

impl<V, S> Parallel<V, S> {
    /// `--balanced`.
    #[must_use = "this makes another one of it"]
    pub fn balanced(mut self) -> Self {
        self.how = self.how.map(|how| How {
            balanced: true,
            ..how
        });
        self
    }

    /// `--chunks`.
    #[must_use = "this makes another one of it"]
    pub fn chunks(mut self, parts: usize) -> Self {
        self.how = self.how.map(|how| How {
            parts: Some(parts),
            ..how
        });
        self
    }

    /// `--over`.
    #[must_use = "this makes another one of it"]
    pub fn over<W: Parts + ?Sized>(self, over: &W) -> Parallel<Over<'_, W::Part>, S> {
        Parallel {
            how: self.how,
            over: Over {
                count: over.count(),
                part: Box::new(|range, arguments| over.part(range, arguments)),
                types: PhantomData,
            },
            shared: self.shared,
            types: PhantomData,
        }
    }

    /// One of `--with`.
    #[must_use = "this makes another one of it"]
    pub fn with<A: Share>(self, value: &A) -> Parallel<V, (S, A::Own)> {
        let shared = self.shared.and_then(|mut bytes| {
            value.put(&mut bytes).map_err(|source| Error::Codec {
                action: "encode a value for the engines",
                source,
            })?;
            Ok(bytes)
        });
        Parallel {
            how: self.how,
            over: self.over,
            shared,
            types: PhantomData,
        }
    }
}

impl<P, S> Parallel<Over<'_, P>, S> {
    /// Runs the body for each part and waits.
    pub fn each<F, R>(self, body: F) -> Values<R>
    where
        P: Portable,
        S: Portable + Sync,
        F: Fn(&S, P) -> R,
        R: Portable,
    {
        let over = self.over;
        Values(
            self.how
                .and_then(|how| how.run(over, self.shared?, body, true)),
        )
    }
}

impl<S> Parallel<(), S> {
    /// Runs the body once on each engine and waits.
    pub fn once<F, R>(self, body: F) -> Values<R>
    where
        S: Portable + Sync,
        F: Fn(&S, ()) -> R,
        R: Portable,
    {
        Values(self.how.and_then(|how| {
            let view = how.client.direct_view(how.targets.clone());
            let everywhere = Over {
                count: view.targets()?.len(),
                part: Box::new(|_, _| Ok(Piece::Inline(Vec::new()))),
                types: PhantomData,
            };
            how.run(everywhere, self.shared?, body, false)
        }))
    }
}

impl How {
    fn view(&self) -> Box<dyn Deal> {
        let targets = self.targets.clone();
        if self.balanced {
            let view = self.client.load_balanced_view();
            Box::new(view.targets(targets).label("%%parallel"))
        } else {
            Box::new(self.client.direct_view(targets).label("%%parallel"))
        }
    }

    fn run<P, S, F, R>(
        &self,
        over: Over<'_, P>,
        shared: Vec<u8>,
        body: F,
        named: bool,
    ) -> Result<Vec<R>, Error>
    where
        P: Portable,
        S: Portable + Sync,
        F: Fn(&S, P) -> R,
        R: Portable,
    {
        Code::take_body(body);
        let split = Split {
            trampoline: function::apply_with::<F, S, P, R>,
            shared: (!shared.is_empty()).then_some(Common::Value(Encoded {
                head: shared,
                bulk: &[],
            })),
            inputs: over.count,
            parts: self.parts,
        };
        // A balanced view would wait for engines to come.
        self.targets.resolve(&self.client.ids()?)?;
        let handle = split_into(&*self.view(), split, &mut |range, arguments| {
            (over.part)(range, arguments)
        })?;
        let what = if named { "parts" } else { "engines" };
        result::watch(&handle, what, self.progress_after, &mut result::print)?;
        result::parts(&handle, named)
    }
}

/// What the body gave for each part, in the order of the parts.
#[derive(Debug)]
#[must_use = "errors are in it"]
pub struct Values<R>(Result<Vec<R>, Error>);

impl<R> Values<R> {
    /// `--merge`.
    ///
    /// # Errors
    /// When the call could not be made, a part failed, or there were none.
    pub fn merge(self, merge: impl FnMut(R, R) -> R) -> Result<R, Error> {
        self.0?.into_iter().reduce(merge).ok_or(Error::Empty)
    }

    /// Without `--merge`.
    ///
    /// # Errors
    /// When the call could not be made or a part failed.
    pub fn all(self) -> Result<Vec<R>, Error> {
        self.0
    }
}

/// The error in a result, to be handed on.
///
/// # Errors
/// That one.
pub fn stop<R>(result: &Result<R, Error>) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err(error.clone()),
    }
}

/// The value of a result that [`stop`] let pass.
pub fn value<R>(result: Result<R, Error>) -> R {
    result.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error.to_string())))
}
