//! The cells that `%push`, `%pull`, `%scatter` and `%gather` write: [`variables`] and then one call for each name.

use crate::client::Client;
use crate::error::Error;
use crate::portable::Portable;
use crate::result::{self, AsyncResult};
use crate::view::DirectView;
use std::time::Duration;

/// Moves variables between the notebook and some engines.
#[derive(Debug)]
pub struct Variables {
    view: DirectView,
    progress_after: Option<Duration>,
}

/// Connects to the notebook's cluster; as [`parallel`](super::parallel).
///
/// # Errors
/// When there is no cluster.
pub fn variables(targets: &str, progress_after: Option<f64>) -> Result<Variables, Error> {
    Ok(Variables::through(
        &Client::connect()?,
        targets,
        progress_after,
    ))
}

impl Variables {
    /// As [`variables`], over a connection that there is.
    pub fn through(client: &Client, targets: &str, progress_after: Option<f64>) -> Variables {
        Variables {
            view: client.direct_view(targets),
            progress_after: super::after(progress_after),
        }
    }

    fn wait<T>(&self, result: &AsyncResult<T>) -> Result<T, Error> {
        let handle = result.handle()?;
        result::watch(handle, "engines", self.progress_after, &mut result::print)?;
        result.get()
    }

    /// Sets the variable `name` of each engine.
    ///
    /// # Errors
    /// When an engine can't be reached or doesn't know the type.
    pub fn push<T: Portable>(&self, name: &str, value: &T) -> Result<&Self, Error> {
        self.wait(&self.view.push(name, value))?;
        Ok(self)
    }

    /// The variable `name` of each engine.
    ///
    /// # Errors
    /// When an engine doesn't have it, or with another type.
    pub fn pull<T: Portable>(&self, name: &str) -> Result<Vec<T>, Error> {
        self.wait(&self.view.pull(name))
    }

    /// Sets the variable `name` of each engine to a part of `items`.
    ///
    /// # Errors
    /// As [`push`](Variables::push).
    pub fn scatter<V: Scatter + ?Sized>(&self, name: &str, items: &V) -> Result<&Self, Error> {
        items.lend(&mut |items| self.wait(&self.view.scatter(name, items)))?;
        Ok(self)
    }

    /// The vectors called `name` of all engines, one after the other.
    ///
    /// # Errors
    /// As [`pull`](Variables::pull).
    pub fn gather<V: Gather>(&self, name: &str) -> Result<Vec<V::Item>, Error> {
        self.wait(&self.view.gather(name))
    }
}

/// Takes items that are lent.
type Take<'a, T> = &'a mut dyn FnMut(&[T]) -> Result<(), Error>;

/// What can be scattered.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be scattered",
    label = "`%scatter` takes a vector, a slice or an array",
    note = "collect it first: `let items: Vec<_> = .. .collect();`. `%push` sends it whole"
)]
pub trait Scatter {
    /// What there are many of.
    type Item: Portable;

    /// Lends them.
    ///
    /// # Errors
    /// Those of `take`.
    fn lend(&self, take: Take<'_, Self::Item>) -> Result<(), Error>;
}

impl<T: Portable> Scatter for [T] {
    type Item = T;

    fn lend(&self, take: Take<'_, T>) -> Result<(), Error> {
        take(self)
    }
}

impl<T: Portable> Scatter for Vec<T> {
    type Item = T;

    fn lend(&self, take: Take<'_, T>) -> Result<(), Error> {
        take(self)
    }
}

impl<T: Portable, const N: usize> Scatter for [T; N] {
    type Item = T;

    fn lend(&self, take: Take<'_, T>) -> Result<(), Error> {
        take(self)
    }
}

impl<V: Scatter + ?Sized> Scatter for &V {
    type Item = V::Item;

    fn lend(&self, take: Take<'_, V::Item>) -> Result<(), Error> {
        (**self).lend(take)
    }
}

/// What can be gathered.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be gathered",
    label = "`%gather` joins vectors",
    note = "write the type that the variable has on the engines: `%gather name: Vec<{Self}>`. `%pull name: {Self}` fetches one value an engine"
)]
pub trait Gather {
    /// What there are many of.
    type Item: Portable;
}

impl<T: Portable> Gather for Vec<T> {
    type Item = T;
}
