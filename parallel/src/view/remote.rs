//! Functions that remember where they run.

use super::direct::DirectView;
use crate::error::Error;
use crate::function::Trampoline;
use crate::items::Items;
use crate::portable::Portable;
use crate::result::AsyncResult;
use std::fmt;
use std::marker::PhantomData;

/// A function that runs on each engine of a view; [`DirectView::remote`] makes it.
pub struct RemoteFunction<A, R> {
    view: DirectView,
    trampoline: Trampoline,
    function: PhantomData<fn(A) -> R>,
}

impl<A, R> fmt::Debug for RemoteFunction<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteFunction(on {:?})", self.view)
    }
}

impl<A, R> Clone for RemoteFunction<A, R> {
    fn clone(&self) -> Self {
        RemoteFunction::new(self.view.clone(), self.trampoline)
    }
}

impl<A, R> RemoteFunction<A, R> {
    pub(super) fn new(view: DirectView, trampoline: Trampoline) -> RemoteFunction<A, R> {
        RemoteFunction {
            view,
            trampoline,
            function: PhantomData,
        }
    }
}

impl<A: Portable, R: Portable> RemoteFunction<A, R> {
    /// Calls it on each engine.
    pub fn call(&self, argument: A) -> AsyncResult<Vec<R>> {
        self.view.call(self.trampoline, &argument)
    }

    /// Calls it on each engine and waits.
    ///
    /// # Errors
    /// When the call could not be made or failed on an engine.
    pub fn call_sync(&self, argument: A) -> Result<Vec<R>, Error> {
        self.call(argument).get()
    }
}

/// A function of single items that is called for many, spread over a view's engines; [`DirectView::parallel`] makes it.
pub struct ParallelFunction<A, R> {
    view: DirectView,
    trampoline: Trampoline,
    function: PhantomData<fn(A) -> R>,
}

impl<A, R> fmt::Debug for ParallelFunction<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParallelFunction(on {:?})", self.view)
    }
}

impl<A, R> Clone for ParallelFunction<A, R> {
    fn clone(&self) -> Self {
        ParallelFunction::new(self.view.clone(), self.trampoline)
    }
}

impl<A, R> ParallelFunction<A, R> {
    pub(super) fn new(view: DirectView, trampoline: Trampoline) -> ParallelFunction<A, R> {
        ParallelFunction {
            view,
            trampoline,
            function: PhantomData,
        }
    }
}

impl<A: Portable, R: Portable> ParallelFunction<A, R> {
    /// Calls it for each item.
    pub fn map<I: Items<Item = A>>(&self, items: I) -> AsyncResult<Vec<R>> {
        self.view.call_parts(self.trampoline, items)
    }

    /// Calls it for each item and waits.
    ///
    /// # Errors
    /// When the call could not be made or an item failed.
    pub fn map_sync<I: Items<Item = A>>(&self, items: I) -> Result<Vec<R>, Error> {
        self.map(items).get()
    }
}
