//! The cell that `%%parallel` writes: a call of [`parallel`] and then of methods, one for each of its options.
//!
//! ```text
//! let counted = ::chorus::__private::parallel("all", Some(2.0))?.over(&lines).with(&stop).each(|((), stop), lines| {
//!     the body, where `lines` is a part of the notebook's `lines`, and `stop` a reference to the engine's copy of it
//! })?.merge(::chorus::merge::counts)?;
//! ```
//!
//! What `over` and `with` return depends on what they are given by associated types only. Where those bounds fail, rustc knows no
//! such types, and says nothing more of what follows: one mistake is one error.

use super::parts::{Parts, Share};
use crate::client::Client;
use crate::codec::Encoded;
use crate::error::Error;
use crate::function::{self, Code};
use crate::portable::Portable;
use crate::result;
use crate::targets::Targets;
use crate::view::{Deal, Split, split_into};
use crate::wire::Piece;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

/// A `%%parallel` whose body is still to come: over `V`, with shared values of types `S`, a pair of pairs.
#[derive(Debug)]
pub struct Parallel<V, S> {
    how: How,
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

/// What is cut, of whose type only that of its parts is left.
pub struct Over<'a, P> {
    count: usize,
    part: Box<dyn Fn(Range<usize>) -> Result<Piece, Error> + 'a>,
    types: PhantomData<fn() -> P>,
}

impl<P> fmt::Debug for Over<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Over({} items)", self.count)
    }
}

/// Connects to the notebook's cluster. The targets are written as for `%px -t`; progress is shown from so many seconds on, if at all.
///
/// # Errors
/// When there is no cluster.
pub fn parallel(targets: &str, progress_after: Option<f64>) -> Result<Parallel<(), ()>, Error> {
    let client = Client::connect()?;
    Ok(Parallel::through(client, targets, progress_after))
}

impl Parallel<(), ()> {
    /// As [`parallel`], over a connection that there is.
    pub fn through(client: Client, targets: &str, progress_after: Option<f64>) -> Self {
        Parallel {
            how: How {
                client,
                targets: targets.into(),
                progress_after: super::after(progress_after),
                balanced: false,
                parts: None,
            },
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
        self.how.balanced = true;
        self
    }

    /// `--chunks`.
    #[must_use = "this makes another one of it"]
    pub fn chunks(mut self, parts: usize) -> Self {
        self.how.parts = Some(parts);
        self
    }

    /// `--over`.
    #[must_use = "this makes another one of it"]
    pub fn over<W: Parts + ?Sized>(self, over: &W) -> Parallel<Over<'_, W::Part>, S> {
        Parallel {
            how: self.how,
            over: Over {
                count: over.count(),
                part: Box::new(|range| over.part(range)),
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
    ///
    /// # Errors
    /// When the call could not be made or a part failed.
    pub fn each<F, R>(self, body: F) -> Result<Values<R>, Error>
    where
        P: Portable,
        S: Portable + Send + Sync,
        F: Fn(&S, P) -> R,
        R: Portable,
    {
        self.how.run(self.over, self.shared?, body, true)
    }
}

impl<S> Parallel<(), S> {
    /// Runs the body once on each engine and waits.
    ///
    /// # Errors
    /// When the call could not be made or an engine failed.
    pub fn once<F, R>(self, body: F) -> Result<Values<R>, Error>
    where
        S: Portable + Send + Sync,
        F: Fn(&S, ()) -> R,
        R: Portable,
    {
        let view = self.how.client.direct_view(self.how.targets.clone());
        let everywhere = Over {
            count: view.targets()?.len(),
            part: Box::new(|_| Ok(Piece::Inline(Vec::new()))),
            types: PhantomData,
        };
        self.how.run(everywhere, self.shared?, body, false)
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
    ) -> Result<Values<R>, Error>
    where
        P: Portable,
        S: Portable + Send + Sync,
        F: Fn(&S, P) -> R,
        R: Portable,
    {
        Code::take_body(body);
        let split = Split {
            trampoline: function::apply_with::<F, S, P, R>,
            shared: (!shared.is_empty()).then_some(Encoded {
                head: shared,
                bulk: &[],
            }),
            inputs: over.count,
            parts: self.parts,
        };
        let handle = split_into(&*self.view(), split, &mut |range| (over.part)(range))?;
        let what = if named { "parts" } else { "engines" };
        result::watch(&handle, what, self.progress_after, &mut result::print)?;
        result::parts(&handle, named).map(Values)
    }
}

/// What the body gave for each part, in the order of the parts.
#[derive(Debug)]
pub struct Values<R>(Vec<R>);

impl<R> Values<R> {
    /// `--merge`.
    ///
    /// # Errors
    /// When there are none.
    pub fn merge(self, merge: impl FnMut(R, R) -> R) -> Result<R, Error> {
        self.0.into_iter().reduce(merge).ok_or(Error::Empty)
    }

    /// Without `--merge`.
    pub fn all(self) -> Vec<R> {
        self.0
    }
}
