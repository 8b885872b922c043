//! Panics of single items: their message and place, kept from the hook that would report them as the whole call's.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

/// A panic that was caught.
#[derive(Clone, Debug, Default)]
pub(super) struct Panicked {
    pub(super) message: String,
    pub(super) file: String,
    pub(super) line: u32,
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// While it lives, panics of this thread are kept from the hook.
pub(super) struct Catching(());

pub(super) fn catching() -> Catching {
    static HOOK: Once = Once::new();
    // Every shared object with this crate in it does this once, in front of the hooks that were there.
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                LAST.set(Some(panicked(info)));
            } else {
                before(info);
            }
        }));
    });
    CATCHING.set(true);
    Catching(())
}

fn panicked(info: &PanicHookInfo<'_>) -> Panicked {
    let (file, line) = info.location().map_or((String::new(), 0), |place| {
        (place.file().to_owned(), place.line())
    });
    Panicked {
        message: info.payload_as_str().unwrap_or_default().to_owned(),
        file,
        line,
    }
}

impl Catching {
    /// What was caught. A hook that the user set after ours keeps the place for itself.
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) -> Panicked {
        let place = LAST.take().unwrap_or_default();
        Panicked {
            message: message(payload),
            ..place
        }
    }

    /// Runs something whose panics are to be reported as usual.
    pub(super) fn paused<T>(&self, run: impl FnOnce() -> T) -> T {
        CATCHING.set(false);
        let value = run();
        CATCHING.set(true);
        value
    }
}

impl Drop for Catching {
    fn drop(&mut self) {
        CATCHING.set(false);
    }
}

/// The message of a panic.
pub(super) fn message(payload: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "Box<dyn Any>".to_owned()
    };
    // A payload of the user's may panic once more when it is dropped.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    text
}
