//! A view on which each call runs on all of its engines.

use super::remote::{ParallelFunction, RemoteFunction};
use super::shared::Shared;
use super::split::{self, Deal, Dealt};
use crate::codec::Encoded;
use crate::error::Error;
use crate::function::{self, Code, Trampoline};
use crate::items::Items;
use crate::link::Link;
use crate::names;
use crate::portable::Portable;
use crate::result::{self, AsyncResult, Handle, Iter, Kind};
use crate::submit::{self, Arguments, Job, Same};
use crate::targets::Targets;
use crate::wire::{Executed, Piece, Route, Work};
use std::fmt;
use std::sync::Arc;

/// Some engines, named by [`Targets`], each of which runs what is called. Results are in the order of the targets.
///
/// `apply` and its kin run one call on each engine; `map` and its kin cut the inputs into one part for each engine. What they return is
/// on its way ([`AsyncResult`]); the `_sync` variants wait.
///
/// Closures must not capture (a compile-time error says so) and run in other processes: they see functions, constants and types, but
/// no variables and none of the program's statics' present values.
#[derive(Clone)]
pub struct DirectView {
    link: Arc<Link>,
    targets: Targets,
    label: Option<String>,
}

impl fmt::Debug for DirectView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.targets() {
            Ok(ids) => write!(f, "DirectView({}: engines {ids:?})", self.targets),
            Err(error) => write!(f, "DirectView({}: {error})", self.targets),
        }
    }
}

impl DirectView {
    pub(crate) fn new(link: Arc<Link>, targets: Targets) -> DirectView {
        DirectView {
            link,
            targets,
            label: None,
        }
    }

    /// The engines that the view means now.
    ///
    /// # Errors
    /// When its targets name none, or the connection is lost.
    pub fn targets(&self) -> Result<Vec<u32>, Error> {
        self.targets.resolve(&self.link.engines()?)
    }

    /// The same view, whose tasks bear this name: in what a result shows, and in the hub's records.
    #[must_use = "this makes another view of it"]
    pub fn label(mut self, label: impl Into<String>) -> DirectView {
        self.label = Some(label.into());
        self
    }

    /// Calls `function(argument)` on each engine. Several arguments are a tuple: `view.apply(|(a, b)| a + b, (1, 2))`.
    pub fn apply<F, A, R>(&self, function: F, argument: A) -> AsyncResult<Vec<R>>
    where
        F: Fn(A) -> R,
        A: Portable, // borrows nothing: a `String`, no `&str`
        R: Portable,
    {
        Code::take(function);
        self.call(function::apply::<F, A, R>, &argument)
    }

    pub(super) fn call<A: Portable, R: Portable>(
        &self,
        trampoline: Trampoline,
        argument: &A,
    ) -> AsyncResult<Vec<R>> {
        let tasks = self.same(trampoline, submit::encode(argument));
        AsyncResult::new("apply", tasks, Kind::Each, result::each)
    }

    /// As [`apply`](DirectView::apply), and waits.
    ///
    /// # Errors
    /// When the call could not be made or failed on an engine.
    pub fn apply_sync<F, A, R>(&self, function: F, argument: A) -> Result<Vec<R>, Error>
    where
        F: Fn(A) -> R,
        A: Portable, // borrows nothing: a `String`, no `&str`
        R: Portable,
    {
        self.apply(function, argument).get()
    }

    /// Calls the function for each item; each engine gets one part of the items, all parts of equal size. An item's panic costs
    /// its own result only: [`results`](AsyncResult::results) has the others.
    pub fn map<I, F, R>(&self, items: I, function: F) -> AsyncResult<Vec<R>>
    where
        I: Items, // of values that borrow nothing: `String`s, no `&str`s
        F: Fn(I::Item) -> R,
        R: Portable,
    {
        split::map(self, items, function)
    }

    /// As [`map`](DirectView::map), and waits.
    ///
    /// # Errors
    /// When the call could not be made or an item failed.
    pub fn map_sync<I, F, R>(&self, items: I, function: F) -> Result<Vec<R>, Error>
    where
        I: Items, // of values that borrow nothing: `String`s, no `&str`s
        F: Fn(I::Item) -> R,
        R: Portable,
    {
        self.map(items, function).get()
    }

    /// As [`map`](DirectView::map), with a value that every call can look at: it is sent once to each engine.
    pub fn map_with<S, I, F, R>(&self, shared: &S, items: I, function: F) -> AsyncResult<Vec<R>>
    where
        S: Portable + Sync,
        I: Items, // of values that borrow nothing: `String`s, no `&str`s
        F: Fn(&S, I::Item) -> R,
        R: Portable,
    {
        split::map_with(self, shared, items, function)
    }

    /// As [`map_with`](DirectView::map_with), with a value that was sent before: see [`Client::share`](crate::Client::share).
    pub fn map_shared<S, I, F, R>(
        &self,
        shared: &Shared<S>,
        items: I,
        function: F,
    ) -> AsyncResult<Vec<R>>
    where
        S: Portable + Sync,
        I: Items, // of values that borrow nothing: `String`s, no `&str`s
        F: Fn(&S, I::Item) -> R,
        R: Portable,
    {
        split::map_shared(self, shared, items, function)
    }

    /// Calls `function` for each item and makes one value of the results with `merge`, on the engines first and then here. A panic costs the whole result. `merge`
    /// gets neighbours in the items' order; it has to be associative.
    pub fn map_reduce<I, F, M, R>(&self, items: I, function: F, merge: M) -> AsyncResult<R>
    where
        I: Items, // of values that borrow nothing: `String`s, no `&str`s
        F: Fn(I::Item) -> R,
        M: Fn(R, R) -> R,
        R: Portable,
    {
        split::map_reduce(self, items, function, merge)
    }

    /// As [`map`](DirectView::map); the results in the order of the items, each part as soon as it is there. With
    /// [`unordered`](Iter::unordered): as they come.
    pub fn imap<I, F, R>(&self, items: I, function: F) -> Iter<R>
    where
        I: Items, // of values that borrow nothing: `String`s, no `&str`s
        F: Fn(I::Item) -> R,
        R: Portable,
    {
        self.map(items, function).into_iter()
    }

    /// Sets the variable `name` in each engine's namespace. Its type is the value's; engines know the types of std and those that were defined on
    /// them.
    pub fn push<T: Portable>(&self, name: &str, value: &T) -> AsyncResult<()> {
        let tasks = self
            .setting::<T>("push", name)
            .and_then(|job| self.same_for_all(job, submit::encode(value)?));
        AsyncResult::new("push", tasks, Kind::Each, result::nothing)
    }

    /// The variable `name` of each engine. If it has another type there than `T`, that is the compiler's error.
    pub fn pull<T: Portable>(&self, name: &str) -> AsyncResult<Vec<T>> {
        let tasks = self.reading::<T>("pull", name);
        AsyncResult::new("pull", tasks, Kind::Each, result::each)
    }

    /// Cuts the items into parts of equal size and sets the variable `name`, a `Vec`, of each engine to one of them.
    pub fn scatter<T: Portable>(&self, name: &str, items: &[T]) -> AsyncResult<()> {
        let tasks = self.setting::<Vec<T>>("scatter", name).and_then(|job| {
            let engines = self.targets()?;
            let count = engines.len();
            let part =
                |index: usize| index * items.len() / count..(index + 1) * items.len() / count;
            let sizes = (0..count).map(|index| part(index).len()).collect();
            job.submit(&self.link, sizes, &mut |index| {
                Ok((
                    engines.get(index).copied(),
                    Arguments::default().part_of(items, part(index))?,
                ))
            })
        });
        AsyncResult::new("scatter", tasks, Kind::Each, result::nothing)
    }

    /// The variable `name`, a `Vec`, of all engines, in one.
    pub fn gather<T: Portable>(&self, name: &str) -> AsyncResult<Vec<T>> {
        let tasks = self.reading::<Vec<T>>("gather", name);
        AsyncResult::new("gather", tasks, Kind::Joined, result::joined)
    }

    /// Evaluates source text in each engine's namespace, as `%px` does.
    pub fn execute(&self, code: &str) -> AsyncResult<Vec<Executed>> {
        let job = self.snippet(code.to_owned(), None, None);
        let tasks = self.one_each(job, |_| Ok(Piece::Inline(Vec::new())));
        AsyncResult::new("execute", tasks, Kind::Each, result::each)
    }

    /// Makes a function that runs on the view's engines whenever it is called (as ipyparallel's `@remote`).
    pub fn remote<F, A, R>(&self, function: F) -> RemoteFunction<A, R>
    where
        F: Fn(A) -> R,
        A: Portable, // borrows nothing: a `String`, no `&str`
        R: Portable,
    {
        RemoteFunction::new(self.clone(), function)
    }

    /// Makes a function of items, whose calls are spread over the view's engines (as ipyparallel's `@parallel`).
    pub fn parallel<F, A, R>(&self, function: F) -> ParallelFunction<A, R>
    where
        F: Fn(A) -> R,
        A: Portable, // borrows nothing: a `String`, no `&str`
        R: Portable,
    {
        ParallelFunction::new(self.clone(), function)
    }

    fn snippet(&self, code: String, takes: Option<String>, gives: Option<String>) -> Job {
        Job {
            work: Work::Snippet { code, takes, gives },
            route: Route::Direct,
            label: self.label.clone(),
            shared: Vec::new(),
        }
    }

    fn setting<T>(&self, action: &'static str, name: &str) -> Result<Job, Error> {
        names::check(action, name)?;
        Ok(self.snippet(names::set::<T>(name), Some(name.to_owned()), None))
    }

    fn reading<T>(&self, action: &'static str, name: &str) -> Result<Handle, Error> {
        names::check(action, name)?;
        let job = self.snippet(names::read::<T>(name), None, Some(name.to_owned()));
        self.one_each(job, |_| Ok(Piece::Inline(Vec::new())))
    }

    /// One task an engine.
    fn one_each(
        &self,
        job: Job,
        mut arguments: impl FnMut(usize) -> Result<Piece, Error>,
    ) -> Result<Handle, Error> {
        let engines = self.targets()?;
        job.submit(&self.link, vec![1; engines.len()], &mut |index| {
            Ok((engines.get(index).copied(), arguments(index)?))
        })
    }

    fn same_for_all(&self, job: Job, value: Encoded<'_>) -> Result<Handle, Error> {
        let engines = self.targets()?;
        if let [engine] = engines.as_slice() {
            let mut piece = self.link.piece(value)?;
            return job.submit(&self.link, vec![1], &mut |_| {
                let piece = std::mem::replace(&mut piece, Piece::Inline(Vec::new()));
                Ok((Some(*engine), piece))
            });
        }
        let same = Same::new(&self.link, value)?;
        job.submit(&self.link, vec![1; engines.len()], &mut |index| {
            Ok((engines.get(index).copied(), same.piece()))
        })
    }

    /// The same call on each engine.
    fn same(
        &self,
        trampoline: Trampoline,
        argument: Result<Encoded<'_>, Error>,
    ) -> Result<Handle, Error> {
        self.same_for_all(self.job(trampoline)?, argument?)
    }
}

impl Deal for DirectView {
    fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn job(&self, trampoline: Trampoline) -> Result<Job, Error> {
        Job::call(trampoline, Route::Direct, self.label.clone())
    }

    /// One part an engine, and none for engines that would get nothing. With more parts than engines, these take turns.
    fn deal(&self, inputs: usize, parts: Option<usize>) -> Result<Vec<Dealt>, Error> {
        let engines = self.targets()?;
        let parts = submit::parts(inputs, parts.unwrap_or(engines.len()));
        Ok(engines.into_iter().map(Some).cycle().zip(parts).collect())
    }
}
