//! What both kinds of views do alike: cut inputs into parts and make a task of each.

use crate::codec::Encoded;
use crate::error::Error;
use crate::function::{self, Code, Trampoline};
use crate::items::Items;
use crate::link::Link;
use crate::portable::Portable;
use crate::result::{self, AsyncResult, Handle, Kind};
use crate::submit::{self, Arguments, Job, Sent};
use crate::view::Shared;
use crate::wire::Piece;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A part of the inputs, and the engine that gets it if the view says which.
pub(crate) type Dealt = (Option<u32>, Range<usize>);

/// A view, as far as it decides what runs where.
pub(crate) trait Deal: fmt::Debug {
    fn link(&self) -> &Arc<Link>;

    /// A call in the view's way.
    fn job(&self, trampoline: Trampoline) -> Result<Job, Error>;

    /// So many inputs in so many parts; without, in as many as suit the view. Fewer if there are fewer inputs.
    fn deal(&self, inputs: usize, parts: Option<usize>) -> Result<Vec<Dealt>, Error>;
}

/// A value for all tasks of a call.
#[derive(Debug)]
pub(crate) enum Common<'a> {
    /// For this call.
    Value(Encoded<'a>),
    /// Sent before, as the shared value of this number.
    Sent(u64),
}

/// What `split_into` is asked to do.
#[derive(Debug)]
pub(crate) struct Split<'a> {
    pub(crate) trampoline: Trampoline,
    /// A value for all tasks.
    pub(crate) shared: Option<Common<'a>>,
    pub(crate) inputs: usize,
    pub(crate) parts: Option<usize>,
}

/// Encodes the arguments of one task.
type Encode<'f> = dyn FnMut(Range<usize>, &mut Arguments) -> Result<Piece, Error> + 'f;

/// One task a part.
pub(crate) fn split_into(
    view: &dyn Deal,
    split: Split<'_>,
    encode: &mut Encode<'_>,
) -> Result<Handle, Error> {
    let dealt = view.deal(split.inputs, split.parts)?;
    let mut job = view.job(split.trampoline)?;
    if dealt.is_empty() {
        return Ok(job.done(view.link()));
    }
    // Dropped when all tasks are submitted.
    let mut sent = None;
    job.shared.extend(match split.shared {
        None => None,
        Some(Common::Sent(id)) => Some(id),
        Some(Common::Value(value)) => {
            let sent = sent.insert(Sent::new(view.link(), value)?);
            Some(sent.id)
        }
    });
    let sizes = dealt.iter().map(|(_, part)| part.len()).collect();
    let mut arguments = Arguments::new(view.link(), dealt.len());
    job.submit(view.link(), sizes, &mut |index| {
        let (engine, part) = dealt.get(index).cloned().unwrap_or_default();
        Ok((engine, encode(part, &mut arguments)?))
    })
}

/// One task a part of the items.
fn split<I: Items>(
    view: &dyn Deal,
    trampoline: Trampoline,
    shared: Result<Option<Common<'_>>, Error>,
    items: I,
) -> Result<Handle, Error> {
    let shared = shared?;
    items.with(|items| {
        let split = Split {
            trampoline,
            shared,
            inputs: items.len(),
            parts: None,
        };
        split_into(view, split, &mut |range, arguments| {
            arguments.part_of(items, range)
        })
    })
}

/// `map` of both views.
pub(super) fn map<I, F, R>(view: &dyn Deal, items: I, function: F) -> AsyncResult<Vec<R>>
where
    I: Items,
    F: Fn(I::Item) -> R,
    R: Portable,
{
    Code::take(function);
    call_parts(view, function::map::<F, I::Item, R>, items)
}

/// `map` of a function that was taken before.
pub(super) fn call_parts<I: Items, R: Portable>(
    view: &dyn Deal,
    trampoline: Trampoline,
    items: I,
) -> AsyncResult<Vec<R>> {
    let tasks = split(view, trampoline, Ok(None), items);
    AsyncResult::new("map", tasks, Kind::Chunks, result::chunks)
}

/// `map_with` of both views.
pub(super) fn map_with<S, I, F, R>(
    view: &dyn Deal,
    shared: &S,
    items: I,
    function: F,
) -> AsyncResult<Vec<R>>
where
    S: Portable + Sync,
    I: Items,
    F: Fn(&S, I::Item) -> R,
    R: Portable,
{
    Code::take(function);
    let shared = submit::encode(shared).map(|value| Some(Common::Value(value)));
    let tasks = split(view, function::map_with::<F, S, I::Item, R>, shared, items);
    AsyncResult::new("map_with", tasks, Kind::Chunks, result::chunks)
}

/// `map_shared` of both views.
pub(super) fn map_shared<S, I, F, R>(
    view: &dyn Deal,
    shared: &Shared<S>,
    items: I,
    function: F,
) -> AsyncResult<Vec<R>>
where
    S: Portable + Sync,
    I: Items,
    F: Fn(&S, I::Item) -> R,
    R: Portable,
{
    Code::take(function);
    let shared = shared.id_for(view.link()).map(|id| Some(Common::Sent(id)));
    let tasks = split(view, function::map_with::<F, S, I::Item, R>, shared, items);
    AsyncResult::new("map_shared", tasks, Kind::Chunks, result::chunks)
}

/// `map_reduce` of both views.
pub(super) fn map_reduce<I, F, M, R>(
    view: &dyn Deal,
    items: I,
    function: F,
    merge: M,
) -> AsyncResult<R>
where
    I: Items,
    F: Fn(I::Item) -> R,
    M: Fn(R, R) -> R,
    R: Portable,
{
    Code::take(function);
    Code::take(merge);
    let tasks = split(
        view,
        function::map_reduce::<F, M, I::Item, R>,
        Ok(None),
        items,
    );
    AsyncResult::new("map_reduce", tasks, Kind::Reduced, result::reduced::<M, R>)
}
