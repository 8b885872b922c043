//! Results that are still on their way.

mod iter;
mod read;
mod show;
mod table;
mod timeline;
mod watch;

pub use iter::{Completed, Iter};
pub(crate) use read::{Kind, chunks, each, joined, nothing, one, parts, reduced};
pub(crate) use watch::{print, watch};

use crate::batch::{Batch, Metadata, Numbered, Printed};
use crate::error::Error;
use crate::link::Link;
use crate::merge;
use crate::portable::Portable;
use crate::tally::Tally;
use crate::wire::Question;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The tasks of one call and the connection by which their results come. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    link: Arc<Link>,
    batch: Arc<Batch>,
    label: Option<Arc<str>>,
}

impl Handle {
    pub(crate) fn new(link: Arc<Link>, batch: Arc<Batch>, label: Option<&str>) -> Handle {
        Handle {
            link,
            batch,
            label: label.map(Arc::from),
        }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Waits until all tasks have ended; whether they have.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool, Error> {
        let done = self
            .link
            .wait(deadline, |_| self.batch.is_done().then_some(()))?;
        Ok(done.is_some())
    }

    /// Those that have ended besides the first so many, in the order in which they did; waits until there are any. None when all have been
    /// taken.
    fn ended_beyond(&self, taken: usize) -> Result<Vec<Numbered>, Error> {
        self.wait_until(|| {
            let ended = self.batch.ended_beyond(taken);
            (!ended.is_empty() || taken >= self.batch.len()).then_some(ended)
        })
    }

    /// Waits until `check` gives something; an error if the connection is lost before.
    pub(crate) fn wait_until<T>(&self, check: impl Fn() -> Option<T>) -> Result<T, Error> {
        let found = self.link.wait(None, |_| check())?;
        found.ok_or_else(|| Error::Lost {
            reason: "the result can't come any more".to_owned(),
        })
    }
}

/// What a call on a view gives at once: a promise of its result. The call goes on while the program does something else.
///
/// Dropping it doesn't stop the tasks; [`abort`](AsyncResult::abort) drops those that wait. Results are kept as they came, so
/// [`get`](AsyncResult::get) can be called more than once.
///
/// In a notebook, a cell that ends in it shows how far it is, waits, and then shows what ran where.
#[must_use = "the result is on its way: wait for it with `get()`"]
pub struct AsyncResult<T> {
    tasks: Result<Handle, Error>,
    /// Waits for the tasks.
    read: fn(&Handle) -> Result<T, Error>,
    kind: Kind,
    name: &'static str,
    result: PhantomData<fn() -> T>,
}

impl<T> Clone for AsyncResult<T> {
    fn clone(&self) -> AsyncResult<T> {
        AsyncResult {
            tasks: self.tasks.clone(),
            read: self.read,
            kind: self.kind,
            name: self.name,
            result: PhantomData,
        }
    }
}

impl<T> AsyncResult<T> {
    pub(crate) fn new(
        name: &'static str,
        tasks: Result<Handle, Error>,
        kind: Kind,
        read: fn(&Handle) -> Result<T, Error>,
    ) -> AsyncResult<T> {
        AsyncResult {
            tasks,
            read,
            kind,
            name,
            result: PhantomData,
        }
    }

    pub(crate) fn handle(&self) -> Result<&Handle, Error> {
        self.tasks.as_ref().map_err(Error::clone)
    }

    /// The name that its view gave it, see [`LoadBalancedView::label`](crate::LoadBalancedView::label).
    pub fn label(&self) -> Option<&str> {
        self.tasks.as_ref().ok()?.label.as_deref()
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// When the call could not be made, a task failed or the connection was lost.
    pub fn get(&self) -> Result<T, Error> {
        (self.read)(self.handle()?)
    }

    /// Waits for the result, but not longer than this.
    ///
    /// # Errors
    /// As [`get`](AsyncResult::get), and [`Error::TimedOut`]; then the tasks go on.
    pub fn get_timeout(&self, within: Duration) -> Result<T, Error> {
        let handle = self.handle()?;
        if handle.wait(Instant::now().checked_add(within))? {
            return (self.read)(handle);
        }
        let (done, total) = self.progress();
        Err(Error::TimedOut {
            waited: within,
            done,
            total,
        })
    }

    /// Whether everything has ended, well or not.
    pub fn ready(&self) -> bool {
        self.wait_timeout(Duration::ZERO)
    }

    /// Waits until everything has ended, well or not.
    pub fn wait(&self) {
        if let Ok(handle) = &self.tasks {
            // What went wrong is told by whoever asks for the result.
            let _ = handle.wait(None);
        }
    }

    /// Waits until everything has ended, but not longer than this; whether it has.
    pub fn wait_timeout(&self, within: Duration) -> bool {
        match &self.tasks {
            Ok(handle) => handle
                .wait(Instant::now().checked_add(within))
                .unwrap_or(true),
            Err(_) => true,
        }
    }

    /// Whether everything has ended, and ended well. Does not wait.
    pub fn successful(&self) -> bool {
        match &self.tasks {
            Ok(handle) => self.ready() && read::failures(handle, self.kind) == 0,
            Err(_) => false,
        }
    }

    /// Drops those of its tasks that no engine has begun; they fail as aborted. Running ones go on.
    ///
    /// # Errors
    /// When the carrier can't be asked.
    pub fn abort(&self) -> Result<(), Error> {
        let handle = self.handle()?;
        let tasks = handle.batch.open();
        if tasks.is_empty() {
            return Ok(());
        }
        handle
            .link
            .ask(Question::Abort { tasks: Some(tasks) })
            .map(drop)
    }

    /// Inputs that are done, and all. For a call without inputs, its tasks.
    pub fn progress(&self) -> (usize, usize) {
        match &self.tasks {
            Ok(handle) => {
                // If the connection is lost, the tasks say so.
                let _ = handle.link.poll();
                (handle.batch.progress().1, handle.batch.items())
            }
            Err(_) => (0, 0),
        }
    }

    /// How many tasks it is.
    pub fn tasks(&self) -> usize {
        self.tasks.as_ref().map_or(0, |handle| handle.batch.len())
    }

    /// What each of its tasks did: for which inputs, where and when.
    pub fn metadata(&self) -> Vec<Metadata> {
        let mut tasks = self.answers();
        if let Ok(handle) = &self.tasks {
            for (index, task) in tasks.iter_mut().enumerate() {
                // What came with the answer may tell of inputs that failed.
                if task.success == Some(true) {
                    task.success = Some(read::task_failures(handle, self.kind, index) == 0);
                }
            }
        }
        tasks
    }

    /// As [`metadata`](AsyncResult::metadata), without a look at what came with the answers.
    fn answers(&self) -> Vec<Metadata> {
        match &self.tasks {
            Ok(handle) => {
                let _ = handle.link.poll();
                handle.batch.metadata()
            }
            Err(_) => Vec::new(),
        }
    }

    /// When the call was made, in seconds since 1970.
    pub fn submitted(&self) -> Option<f64> {
        Some(self.tasks.as_ref().ok()?.batch.created)
    }

    /// When the first task began, in seconds since 1970 by the engine's clock.
    pub fn started(&self) -> Option<f64> {
        self.answers()
            .iter()
            .filter_map(|task| task.started)
            .reduce(f64::min)
    }

    /// When the last task ended, once all have, in seconds since 1970 by the engine's clock.
    pub fn completed(&self) -> Option<f64> {
        let tasks = self.answers();
        if tasks.iter().any(|task| task.success.is_none()) {
            return None;
        }
        tasks
            .iter()
            .filter_map(|task| task.completed)
            .reduce(f64::max)
    }

    /// The engines its tasks ran on, in ascending order.
    pub fn engines(&self) -> Vec<u32> {
        let mut engines: Vec<u32> = self
            .answers()
            .iter()
            .filter_map(|task| task.engine)
            .collect();
        engines.sort_unstable();
        engines.dedup();
        engines
    }

    /// From the call to the end of the last task, once all have ended.
    pub fn wall_time(&self) -> Option<Duration> {
        let length = self.completed()? - self.submitted()?;
        Some(Duration::try_from_secs_f64(length).unwrap_or_default())
    }

    /// How long the engines worked, all together.
    pub fn serial_time(&self) -> Duration {
        let tasks = self.answers();
        let worked = tasks
            .iter()
            .filter_map(|task| Some(task.completed? - task.started?));
        Duration::try_from_secs_f64(worked.sum()).unwrap_or_default()
    }

    /// How many times faster than one engine alone: `serial_time / wall_time`, once all have ended.
    pub fn speedup(&self) -> Option<f64> {
        let wall = self.wall_time()?.as_secs_f64();
        (wall > 0.0).then(|| self.serial_time().as_secs_f64() / wall)
    }

    /// What its tasks have printed so far, up to about a megabyte. A notebook shows it too, in the cell that runs;
    /// what came before a cell died or was interrupted, or while the program left much unread, is only there.
    pub fn output(&self) -> Vec<Printed> {
        match &self.tasks {
            Ok(handle) => {
                let _ = handle.link.poll();
                handle.batch.output()
            }
            Err(_) => Vec::new(),
        }
    }
}

impl<R: Portable> AsyncResult<Vec<R>> {
    /// Waits, and gives each result or what went wrong with it, in the order of the inputs (for a call on all engines: of the engines).
    ///
    /// # Errors
    /// When the call could not be made at all.
    pub fn results(&self) -> Result<Vec<Result<R, Error>>, Error> {
        let handle = self.handle()?;
        handle.wait(None)?;
        if self.kind.is_whole() {
            return Ok(self.get()?.into_iter().map(Ok).collect());
        }
        read::results(handle, self.kind)
    }

    /// The results in the order of the inputs, each as soon as it and those before it are there.
    pub fn iter(&self) -> Iter<R> {
        Iter::new(self.clone())
    }

    /// The results as they come, each with its input's number.
    pub fn as_completed(&self) -> Completed<R> {
        Completed(self.iter().unordered())
    }
}

impl<C: Tally> AsyncResult<Vec<C>> {
    /// Waits, and adds the results' numbers key by key: the same as `get()?.into_iter().reduce(merge::counts)` with
    /// [`merge::counts`], but each result is added while it is decoded, so that only one map is ever made, whatever
    /// the number of results. Without any results it is empty.
    ///
    /// They are added in the order in which they come; sums of floating point numbers may differ in their last digits from one run to the next.
    ///
    /// # Errors
    /// As [`get`](AsyncResult::get).
    pub fn counts(&self) -> Result<C, Error> {
        if self.kind.is_whole() {
            let maps = self.get()?.into_iter();
            return Ok(maps.reduce(merge::counts).unwrap_or_default());
        }
        read::counts(self.handle()?, self.kind)
    }
}

impl<R: Portable> IntoIterator for AsyncResult<Vec<R>> {
    type Item = Result<R, Error>;
    type IntoIter = Iter<R>;

    fn into_iter(self) -> Iter<R> {
        self.iter()
    }
}

impl<R: Portable> IntoIterator for &AsyncResult<Vec<R>> {
    type Item = Result<R, Error>;
    type IntoIter = Iter<R>;

    fn into_iter(self) -> Iter<R> {
        self.iter()
    }
}
