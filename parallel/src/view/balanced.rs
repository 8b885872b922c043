//! A view on which each task runs on the engine that has least to do.

use super::imap::Imap;
use super::remote::{ParallelFunction, RemoteFunction};
use super::shared::Shared;
use super::split::{self, Deal, Dealt};
use crate::codec::Encoded;
use crate::error::Error;
use crate::function::{self, Code, Trampoline};
use crate::items::Items;
use crate::link::Link;
use crate::portable::Portable;
use crate::result::{self, AsyncResult, Handle, Kind};
use crate::submit::{self, Job};
use crate::targets::Targets;
use crate::wire::{Dependency, Piece, Route};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Chunks that a `map` makes for each engine, if nobody says otherwise: enough that uneven ones even out (an engine that is late is late by
/// a 32nd of its work), and so few that their cost doesn't count.
const CHUNKS: usize = 32;

/// Most items of a task of `imap`, if nobody says otherwise: its inputs are taken ahead of the results, and there may be very many.
const LAZY: usize = 1024;

/// All engines, or some, of which the scheduler chooses one for each task.
///
/// How tasks are to be run is set on the view, which gives another view:
/// `client.load_balanced_view().retries(2).timeout(Duration::from_secs(60))`.
#[derive(Clone)]
pub struct LoadBalancedView {
    link: Arc<Link>,
    targets: Option<Targets>,
    retries: u32,
    timeout: Option<Duration>,
    after: Option<After>,
    follow: Option<After>,
    label: Option<String>,
    chunk_size: Option<usize>,
}

impl fmt::Debug for LoadBalancedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoadBalancedView(")?;
        match (&self.targets, self.link.engines()) {
            (Some(targets), _) => write!(f, "{targets}")?,
            (None, Ok(engines)) => write!(f, "engines {engines:?}")?,
            (None, Err(error)) => write!(f, "{error}")?,
        }
        if self.retries > 0 {
            write!(f, ", {} retries", self.retries)?;
        }
        if let Some(timeout) = self.timeout {
            write!(f, ", timeout {timeout:?}")?;
        }
        for (name, given) in [("after", &self.after), ("follow", &self.follow)] {
            if let Some(After { dependency, .. }) = given {
                let tasks: u64 = dependency.tasks.iter().map(|span| span.count).sum();
                write!(f, ", {name} {tasks} tasks")?;
            }
        }
        f.write_str(")")
    }
}

/// Tasks that come before others, and when that counts as done: when [all](After::all) of them or [any](After::any) one has ended; well, unless
/// [said otherwise](After::when).
#[derive(Clone, Debug)]
pub struct After {
    dependency: Dependency,
    /// Whose tasks they are.
    link: Option<Arc<Link>>,
    /// Why there can be no such tasks.
    refused: Option<Error>,
}

impl After {
    /// All tasks of these calls.
    pub fn all<T>(calls: &[&AsyncResult<T>]) -> After {
        After::new(calls, true)
    }

    /// Any one task of these calls.
    pub fn any<T>(calls: &[&AsyncResult<T>]) -> After {
        After::new(calls, false)
    }

    fn new<T>(calls: &[&AsyncResult<T>], all: bool) -> After {
        let none = After {
            dependency: Dependency {
                tasks: Vec::new(),
                all,
                success: true,
                failure: false,
            },
            link: None,
            refused: None,
        };
        calls.iter().fold(none, |after, call| after.and(call))
    }

    /// These, and those.
    #[must_use = "this makes another condition of it"]
    pub fn and<T>(mut self, call: &AsyncResult<T>) -> After {
        match call.handle() {
            Ok(handle) => {
                let link = self.link.get_or_insert_with(|| Arc::clone(handle.link()));
                if !Arc::ptr_eq(link, handle.link()) {
                    self.refused = Some(others());
                }
                let span = Some(handle.batch().span());
                let tasks = &mut self.dependency.tasks;
                tasks.extend(span.filter(|span| span.count > 0));
            }
            Err(error) => {
                self.refused = Some(Error::Refused {
                    reason: format!(
                        "a call that this one is to come after was not submitted: {error}"
                    ),
                });
            }
        }
        self
    }

    /// Whether a task counts that ended well, and one that failed.
    #[must_use = "this makes another condition of it"]
    pub fn when(mut self, success: bool, failure: bool) -> After {
        self.dependency.success = success;
        self.dependency.failure = failure;
        self
    }

    /// For tasks that are submitted over this connection.
    fn of(&self, link: &Arc<Link>) -> Result<Dependency, Error> {
        match &self.refused {
            Some(error) => Err(error.clone()),
            None if self
                .link
                .as_ref()
                .is_some_and(|own| !Arc::ptr_eq(own, link)) =>
            {
                Err(others())
            }
            None => Ok(self.dependency.clone()),
        }
    }
}

fn others() -> Error {
    Error::Refused {
        reason: "a call that this one is to come after belongs to another client: make both with views of one client".to_owned(),
    }
}

impl<T> From<&AsyncResult<T>> for After {
    fn from(call: &AsyncResult<T>) -> After {
        After::all(&[call])
    }
}

impl LoadBalancedView {
    pub(crate) fn new(link: Arc<Link>) -> LoadBalancedView {
        LoadBalancedView {
            link,
            targets: None,
            retries: 0,
            timeout: None,
            after: None,
            follow: None,
            label: None,
            chunk_size: None,
        }
    }

    /// Only these engines, which are looked up with every call; `..` means all, those that come later too.
    #[must_use = "this makes another view of it"]
    pub fn targets(mut self, targets: impl Into<Targets>) -> LoadBalancedView {
        let targets = targets.into();
        self.targets = (targets != Targets::all()).then_some(targets);
        self
    }

    /// A task whose engine dies, or that fails, is run again, up to so many times. A task of a `map` fails, and all of its items
    /// are run again, if one of them panics. What the last try gave for the others is kept, if it came to an end.
    #[must_use = "this makes another view of it"]
    pub fn retries(mut self, retries: u32) -> LoadBalancedView {
        self.retries = retries;
        self
    }

    /// A task that no engine has got after this time fails. One that an engine has got takes as long as it takes.
    #[must_use = "this makes another view of it"]
    pub fn timeout(mut self, timeout: Duration) -> LoadBalancedView {
        self.timeout = Some(timeout);
        self
    }

    /// Tasks wait for these; should these become impossible, they fail. Calls of another client, or that were never submitted, are an error.
    #[must_use = "this makes another view of it"]
    pub fn after(mut self, tasks: impl Into<After>) -> LoadBalancedView {
        self.after = Some(tasks.into());
        self
    }

    /// Tasks run where these ran, after them. After several that ran on different engines there is no such place; [`After::any`] takes that of
    /// one of them.
    #[must_use = "this makes another view of it"]
    pub fn follow(mut self, tasks: impl Into<After>) -> LoadBalancedView {
        self.follow = Some(tasks.into());
        self
    }

    /// Tasks bear this name: in what a result shows, and in the hub's records.
    #[must_use = "this makes another view of it"]
    pub fn label(mut self, label: impl Into<String>) -> LoadBalancedView {
        self.label = Some(label.into());
        self
    }

    /// How many items of a `map` make one task. Without: such that there are 32 tasks for each engine.
    #[must_use = "this makes another view of it"]
    pub fn chunk_size(mut self, items: usize) -> LoadBalancedView {
        self.chunk_size = Some(items.max(1));
        self
    }

    /// Calls `function(argument)` on one engine. Several arguments are a tuple: `view.apply(|(a, b)| a + b, (1, 2))`.
    pub fn apply<F, A, R>(&self, function: F, argument: A) -> AsyncResult<R>
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
    ) -> AsyncResult<R> {
        let tasks = self.several(trampoline, submit::encode(argument), 1);
        AsyncResult::new("apply", tasks, Kind::One, result::one)
    }

    /// As [`apply`](LoadBalancedView::apply), and waits.
    ///
    /// # Errors
    /// When the call could not be made or failed.
    pub fn apply_sync<F, A, R>(&self, function: F, argument: A) -> Result<R, Error>
    where
        F: Fn(A) -> R,
        A: Portable, // borrows nothing: a `String`, no `&str`
        R: Portable,
    {
        self.apply(function, argument).get()
    }

    /// Calls the function for each item, in chunks of items. An item's panic costs its own result only:
    /// [`results`](AsyncResult::results) has the others.
    pub fn map<I, F, R>(&self, items: I, function: F) -> AsyncResult<Vec<R>>
    where
        I: Items, // of values that borrow nothing: `String`s, no `&str`s
        F: Fn(I::Item) -> R,
        R: Portable,
    {
        split::map(self, items, function)
    }

    /// As [`map`](LoadBalancedView::map), and waits.
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

    /// As [`map`](LoadBalancedView::map), with a value that every call can look at: it is sent once to each engine.
    pub fn map_with<S, I, F, R>(&self, shared: &S, items: I, function: F) -> AsyncResult<Vec<R>>
    where
        S: Portable + Sync,
        I: Items, // of values that borrow nothing: `String`s, no `&str`s
        F: Fn(&S, I::Item) -> R,
        R: Portable,
    {
        split::map_with(self, shared, items, function)
    }

    /// As [`map_with`](LoadBalancedView::map_with), with a value that was sent before: see [`Client::share`](crate::Client::share).
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

    /// Calls the function for what an iterator gives, endless ones too: inputs are taken from it as results are taken from what this
    /// returns. In the order of the inputs, or with [`unordered`](Imap::unordered) as they come.
    pub fn imap<'a, I, F, R>(&self, items: I, function: F) -> Imap<'a, R>
    where
        I: IntoIterator<IntoIter: 'a>,
        I::Item: Portable,
        F: Fn(I::Item) -> R,
        R: Portable,
    {
        Code::take(function);
        let engines = self.engines().unwrap_or(1);
        let items = items.into_iter();
        let size = self.chunk_size.unwrap_or_else(|| match items.size_hint() {
            (_, Some(most)) => most.div_ceil(CHUNKS * engines).clamp(1, LAZY),
            (_, None) => 1,
        });
        let view = self.clone();
        let mut items = items.fuse();
        Imap::new(2 * CHUNKS * engines / size.min(CHUNKS), move || {
            let chunk: Vec<I::Item> = items.by_ref().take(size).collect();
            if chunk.is_empty() {
                return None;
            }
            let count = chunk.len();
            let tasks = view.several(
                function::map::<F, I::Item, R>,
                submit::encode(chunk.as_slice()),
                count,
            );
            Some((count, tasks))
        })
    }

    /// Makes a function that runs on one engine whenever it is called (as ipyparallel's `@remote`).
    pub fn remote<F, A, R>(&self, function: F) -> RemoteFunction<A, R, LoadBalancedView>
    where
        F: Fn(A) -> R,
        A: Portable, // borrows nothing: a `String`, no `&str`
        R: Portable,
    {
        RemoteFunction::new(self.clone(), function)
    }

    /// Makes a function of items, whose calls go to whichever engines are free, in chunks (as ipyparallel's `@parallel`).
    pub fn parallel<F, A, R>(&self, function: F) -> ParallelFunction<A, R>
    where
        F: Fn(A) -> R,
        A: Portable, // borrows nothing: a `String`, no `&str`
        R: Portable,
    {
        ParallelFunction::new(self.clone(), function)
    }

    /// How many engines may run its tasks now; at least one.
    fn engines(&self) -> Result<usize, Error> {
        let there = self.link.engines()?;
        Ok(match &self.targets {
            Some(targets) => targets.resolve(&there)?.len(),
            None => there.len(),
        }
        .max(1))
    }

    /// One task for so many items.
    fn several(
        &self,
        trampoline: Trampoline,
        argument: Result<Encoded<'_>, Error>,
        items: usize,
    ) -> Result<Handle, Error> {
        let mut piece = Piece::of(argument?);
        self.job(trampoline)?
            .submit(&self.link, vec![items], &mut |_| {
                let piece = std::mem::replace(&mut piece, Piece::Inline(Vec::new()));
                Ok((None, piece))
            })
    }
}

impl Deal for LoadBalancedView {
    fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn job(&self, trampoline: Trampoline) -> Result<Job, Error> {
        let targets = match &self.targets {
            None => None,
            Some(targets) => Some(targets.resolve(&self.link.engines()?)?),
        };
        let dependency = |after: &Option<After>| {
            let after = after.as_ref();
            after.map(|after| after.of(&self.link)).transpose()
        };
        let route = Route::Balanced {
            targets,
            retries: self.retries,
            timeout: self.timeout.map(|timeout| timeout.as_secs_f64()),
            after: dependency(&self.after)?,
            follow: dependency(&self.follow)?,
        };
        Job::call(trampoline, route, self.label.clone())
    }

    fn deal(&self, inputs: usize, parts: Option<usize>) -> Result<Vec<Dealt>, Error> {
        let chunks = match (parts, self.chunk_size) {
            (Some(parts), _) => submit::parts(inputs, parts),
            (None, Some(size)) => submit::chunks(inputs, size),
            (None, None) => submit::chunks(inputs, inputs.div_ceil(CHUNKS * self.engines()?)),
        };
        Ok(chunks.into_iter().map(|chunk| (None, chunk)).collect())
    }
}
