//! Waiting in a cell, with a display that tells how far it is: one message when it appears, then one a change, at most four a second.
//!
//! A display is printed, as evcxr has it: blocks between `EVCXR_BEGIN_CONTENT <mime>` and `EVCXR_END_CONTENT`, of which the kernel makes
//! one message (`cluster::output`). A block of the type `application/x.chorus.display+json` names it, so that a later one takes its
//! place.

use super::Handle;
use crate::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a display of something that runs is drawn anew.
const UPDATE: Duration = Duration::from_millis(250);

/// Takes text for the notebook.
pub(crate) type Print<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

/// To stdout, at once.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A display that appears and changes.
#[derive(Debug)]
pub(crate) struct Display {
    id: String,
    shown: bool,
}

impl Display {
    pub(super) fn new(handle: &Handle) -> Display {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Display {
            id: format!(
                "chorus-result-{}-{}-{count}",
                std::process::id(),
                handle.batch.span().first
            ),
            shown: false,
        }
    }

    /// Shows this, in the place of what was shown before.
    pub(super) fn show(&mut self, html: &str, text: &str, print: Print<'_>) -> io::Result<()> {
        let name = format!(
            "{{\"display_id\": \"{}\", \"update\": {}}}",
            self.id, self.shown
        );
        self.shown = true;
        let blocks = block("application/x.chorus.display+json", &name)
            + &block("text/html", html)
            + &block("text/plain", text);
        print(&blocks)
    }

    pub(super) fn is_shown(&self) -> bool {
        self.shown
    }
}

pub(super) fn block(mime: &str, content: &str) -> String {
    format!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT\n")
}

/// Waits until everything has ended, well or not. From `after` on (never if it is none) a bar shows how far it is: what `progress` gives, done
/// and all, and the text that it writes.
pub(super) fn wait(
    handle: &Handle,
    display: &mut Display,
    after: Option<Duration>,
    progress: &mut dyn FnMut() -> ((usize, usize), String),
    print: Print<'_>,
) -> Result<(), Error> {
    let appears = after.and_then(|after| Instant::now().checked_add(after));
    let Some(mut next) = appears else {
        return handle.wait(None).map(drop);
    };
    let mut shown = None;
    // A cell whose stdout is closed is no reason to stop.
    while !handle.wait(Some(next))? {
        let (now, text) = progress();
        if shown != Some(now) {
            let _ = display.show(&bar(now), &text, print);
            shown = Some(now);
        }
        next = Instant::now() + UPDATE;
    }
    Ok(())
}

/// Waits for the parts of a `%%parallel`, or whatever is called `what`; what is left of the bar says how long it took.
pub(crate) fn watch(
    handle: &Handle,
    what: &str,
    after: Option<Duration>,
    print: Print<'_>,
) -> Result<(), Error> {
    let started = Instant::now();
    let batch = handle.batch();
    let mut display = Display::new(handle);
    let mut progress = || {
        let (done, all) = (batch.progress().0, batch.len());
        let mut text = format!("{done} of {all} {what}");
        let failed = (0..all)
            .filter_map(|index| batch.get(index))
            .filter(|ended| ended.outcome.is_err())
            .count();
        if failed > 0 {
            let _ = write!(text, ", {failed} failed");
        }
        ((done, all), text)
    };
    wait(handle, &mut display, after, &mut progress, print)?;
    if display.is_shown() {
        let (_, text) = progress();
        let text = format!("{text}, {:.1} s", started.elapsed().as_secs_f64());
        let _ = display.show(&super::timeline::escaped(&text), &text, print);
    }
    Ok(())
}

/// A progress bar.
fn bar((done, total): (usize, usize)) -> String {
    let total = total.max(1);
    format!(
        "<progress value=\"{done}\" max=\"{total}\" style=\"width:20em\" aria-label=\"{done} of {total} done\"></progress> {done} of {total}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_is_named_and_replaced() {
        let mut display = Display {
            id: "a".to_owned(),
            shown: false,
        };
        let mut out = String::new();
        for _ in 0..2 {
            let mut print = |text: &str| {
                out.push_str(text);
                Ok(())
            };
            display.show("<b>x</b>", "x", &mut print).unwrap();
        }
        let expected = |update: bool| {
            format!(
                "EVCXR_BEGIN_CONTENT application/x.chorus.display+json\n{{\"display_id\": \"a\", \"update\": {update}}}\nEVCXR_END_CONTENT\n\
                 EVCXR_BEGIN_CONTENT text/html\n<b>x</b>\nEVCXR_END_CONTENT\n\
                 EVCXR_BEGIN_CONTENT text/plain\nx\nEVCXR_END_CONTENT\n"
            )
        };
        assert_eq!(out, expected(false) + &expected(true));
        assert!(bar((0, 0)).contains("max=\"1\""));
    }
}
