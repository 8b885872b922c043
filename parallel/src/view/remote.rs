//! Functions that remember where they run.

use super::balanced::LoadBalancedView;
use super::direct::DirectView;
use super::split::{self, Deal};
use crate::error::Error;
use crate::function::{self, Code, Trampoline};
use crate::items::Items;
use crate::portable::Portable;
use crate::result::AsyncResult;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A function that runs on each engine of a view, made by [`DirectView::remote`], or on any one of them, made by [`LoadBalancedView::remote`].
pub struct RemoteFunction<A, R, V = DirectView> {
    view: V,
    trampoline: Trampoline,
    function: PhantomData<fn(A) -> R>,
}

impl<A, R, V: fmt::Debug> fmt::Debug for RemoteFunction<A, R, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteFunction(on {:?})", self.view)
    }
}

impl<A, R, V: Clone> Clone for RemoteFunction<A, R, V> {
    fn clone(&self) -> Self {
        RemoteFunction {
            view: self.view.clone(),
            ..*self
        }
    }
}

impl<A: Portable, R: Portable, V> RemoteFunction<A, R, V> {
    pub(super) fn new<F: Fn(A) -> R>(view: V, function: F) -> RemoteFunction<A, R, V> {
        Code::take(function);
        RemoteFunction {
            view,
            trampoline: function::apply::<F, A, R>,
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

impl<A: Portable, R: Portable> RemoteFunction<A, R, LoadBalancedView> {
    /// Calls it on one engine.
    pub fn call(&self, argument: A) -> AsyncResult<R> {
        self.view.call(self.trampoline, &argument)
    }

    /// Calls it on one engine and waits.
    ///
    /// # Errors
    /// When the call could not be made or failed.
    pub fn call_sync(&self, argument: A) -> Result<R, Error> {
        self.call(argument).get()
    }
}

/// A function of single items that is called for many, in its view's way; [`DirectView::parallel`] and [`LoadBalancedView::parallel`] make it.
pub struct ParallelFunction<A, R> {
    view: Arc<dyn Deal + Send + Sync>,
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
        ParallelFunction {
            view: self.view.clone(),
            ..*self
        }
    }
}

impl<A: Portable, R: Portable> ParallelFunction<A, R> {
    pub(super) fn new<F: Fn(A) -> R>(
        view: impl Deal + Send + Sync + 'static,
        function: F,
    ) -> ParallelFunction<A, R> {
        Code::take(function);
        ParallelFunction {
            view: Arc::new(view),
            trampoline: function::map::<F, A, R>,
            function: PhantomData,
        }
    }

    /// Calls it for each item.
    pub fn map<I: Items<Item = A>>(&self, items: I) -> AsyncResult<Vec<R>> {
        split::call_parts(&*self.view, self.trampoline, items)
    }

    /// Calls it for each item and waits.
    ///
    /// # Errors
    /// When the call could not be made or an item failed.
    pub fn map_sync<I: Items<Item = A>>(&self, items: I) -> Result<Vec<R>, Error> {
        self.map(items).get()
    }
}
