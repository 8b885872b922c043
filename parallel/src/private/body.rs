//! The cell that `%%parallel` writes: a call of [`parallel`] and then of methods, one for each of its options.
//!
//! ```text
//! let counted = ::chorus::__private::parallel("all", Some(2.0))?.over(&lines).with(&stop).each(|((), stop), lines| {
//!     the body, where `lines` is a part of the notebook's `lines`, and `stop` a reference to the engine's copy of it
//! })?.merge(::chorus::merge::counts)?;
//! ```

use super::parts::{Everywhere, Parts};
use crate::client::Client;
use crate::codec::{self, Encoded};
use crate::error::Error;
use crate::function::{self, Code};
use crate::portable::Portable;
use crate::result;
use crate::targets::Targets;
use crate::view::{Deal, Split, split_into};
use std::marker::PhantomData;
use std::time::Duration;

/// A `%%parallel` whose body is still to come: over `V`, with shared values of types `S`, a nested pair.
#[derive(Debug)]
pub struct Parallel<V, S> {
    client: Client,
    targets: Targets,
    progress_after: Option<Duration>,
    balanced: bool,
    parts: Option<usize>,
    over: V,
    /// All shared values, one after the other, which is how pairs of pairs are encoded.
    shared: Result<Vec<u8>, Error>,
    types: PhantomData<fn() -> S>,
}

/// Connects to the notebook's cluster. The targets are written as for `%px -t`; progress is shown from so many seconds on, if at all.
///
/// # Errors
/// When there is no cluster.
pub fn parallel(
    targets: &str,
    progress_after: Option<f64>,
) -> Result<Parallel<Option<Everywhere>, ()>, Error> {
    Ok(Parallel {
        client: Client::connect()?,
        targets: targets.into(),
        progress_after: progress_after
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        balanced: false,
        parts: None,
        over: None,
        shared: Ok(Vec::new()),
        types: PhantomData,
    })
}

impl<V, S> Parallel<V, S> {
    /// For tests: what `parallel` gives, over another connection.
    #[doc(hidden)]
    #[must_use = "this makes another one of it"]
    pub fn through(mut self, client: Client) -> Self {
        self.client = client;
        self
    }

    /// `--balanced`.
    #[must_use = "this makes another one of it"]
    pub fn balanced(mut self) -> Self {
        self.balanced = true;
        self
    }

    /// `--chunks`.
    #[must_use = "this makes another one of it"]
    pub fn chunks(mut self, parts: usize) -> Self {
        self.parts = Some(parts);
        self
    }

    /// `--over`.
    #[must_use = "this makes another one of it"]
    pub fn over<W: Parts + ?Sized>(self, over: &W) -> Parallel<&W, S> {
        Parallel {
            client: self.client,
            targets: self.targets,
            progress_after: self.progress_after,
            balanced: self.balanced,
            parts: self.parts,
            over,
            shared: self.shared,
            types: PhantomData,
        }
    }

    /// One of `--with`.
    #[must_use = "this makes another one of it"]
    pub fn with<A: Portable + Send + Sync>(self, value: &A) -> Parallel<V, (S, A)> {
        let shared = self.shared.and_then(|mut bytes| {
            codec::encode_into(value, &mut bytes).map_err(|source| Error::Codec {
                action: "encode a value for the engines",
                source,
            })?;
            Ok(bytes)
        });
        Parallel {
            client: self.client,
            targets: self.targets,
            progress_after: self.progress_after,
            balanced: self.balanced,
            parts: self.parts,
            over: self.over,
            shared,
            types: PhantomData,
        }
    }
}

impl<V: Parts, S: Portable + Send + Sync> Parallel<&V, S> {
    /// Runs the body for each part and waits.
    ///
    /// # Errors
    /// When the call could not be made or a part failed.
    pub fn each<F, R>(self, body: F) -> Result<Values<R>, Error>
    where
        F: Fn(&S, V::Part) -> R,
        R: Portable,
    {
        let over = self.over;
        self.run(over, body, true)
    }
}

impl<S: Portable + Send + Sync> Parallel<Option<Everywhere>, S> {
    /// Runs the body once on each engine and waits.
    ///
    /// # Errors
    /// When the call could not be made or an engine failed.
    pub fn each<F, R>(self, body: F) -> Result<Values<R>, Error>
    where
        F: Fn(&S, ()) -> R,
        R: Portable,
    {
        let engines = self.client.direct_view(self.targets.clone()).targets()?;
        self.run(&Everywhere(engines.len()), body, false)
    }
}

impl<W, S: Portable + Send + Sync> Parallel<W, S> {
    fn run<V, F, R>(self, over: &V, body: F, named: bool) -> Result<Values<R>, Error>
    where
        V: Parts + ?Sized,
        F: Fn(&S, V::Part) -> R,
        R: Portable,
    {
        Code::take_body(body);
        let view: Box<dyn Deal> = if self.balanced {
            let view = self.client.load_balanced_view();
            Box::new(view.targets(self.targets).label("%%parallel"))
        } else {
            Box::new(self.client.direct_view(self.targets).label("%%parallel"))
        };
        let split = Split {
            trampoline: function::apply_with::<F, S, V::Part, R>,
            shared: Some(Encoded {
                head: self.shared?,
                bulk: &[],
            }),
            inputs: over.count(),
            parts: self.parts,
        };
        let handle = split_into(&*view, split, &mut |range| over.part(range))?;
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
