//! How a result shows itself: in `Debug`, and as a notebook's display.

use super::table::{Summary, counted};
use super::{AsyncResult, read};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a display of something that runs is drawn anew.
const UPDATE: Duration = Duration::from_millis(250);

impl<T> fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tasks {
            Ok(_) => f.write_str(&self.stand()),
            Err(error) => write!(f, "AsyncResult({}: not submitted: {error})", self.name),
        }
    }
}

impl<T> AsyncResult<T> {
    /// Where it stands, in one line.
    fn stand(&self) -> String {
        let (done, total) = self.progress();
        let tasks = self.metadata();
        let running = tasks
            .iter()
            .filter(|task| task.success.is_none() && task.started.is_some())
            .count();
        let waiting = tasks
            .iter()
            .filter(|task| task.success.is_none() && task.started.is_none())
            .count();
        let mut out = format!(
            "AsyncResult({}: {done} of {}",
            self.name,
            counted(total, "item")
        );
        if running + waiting > 0 {
            let _ = write!(
                out,
                ", {} running, {waiting} waiting",
                counted(running, "task")
            );
        } else if let Ok(handle) = &self.tasks {
            match read::failures(handle, self.kind) {
                0 => out.push_str(", done"),
                failed => {
                    let _ = write!(out, ", done, {failed} failed");
                }
            }
            if let Some(wall) = self.wall_time() {
                let _ = write!(out, " in {wall:.3?}");
            }
        }
        out.push(')');
        out
    }

    /// Shows, in a notebook, a bar that moves until everything has ended, and then a table and a picture of what ran where. Waits as long; what
    /// interrupts the cell doesn't stop the tasks.
    pub fn evcxr_display(&self) {
        let out = std::io::stdout();
        // A closed stdout is no reason to panic.
        let _ = self.display(&mut |text| {
            let mut out = out.lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        });
    }

    fn display(&self, print: &mut dyn FnMut(&str) -> std::io::Result<()>) -> std::io::Result<()> {
        let handle = match &self.tasks {
            Ok(handle) => handle,
            Err(_) => return print(&block("text/plain", &format!("{self:?}"))),
        };
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!(
            "chorus-result-{}-{}-{count}",
            std::process::id(),
            handle.batch.span().first
        );
        let mut shown = None;
        while !self.wait_timeout(if shown.is_none() {
            Duration::ZERO
        } else {
            UPDATE
        }) {
            let progress = self.progress();
            if shown != Some(progress) {
                print(&named(&id, shown.is_some(), &bar(progress), &self.stand()))?;
                shown = Some(progress);
            }
        }
        let tasks = self.metadata();
        let summary = Summary {
            name: self.name,
            tasks: &tasks,
            failed: read::failures(handle, self.kind),
            inputs: handle.batch.items(),
            wall: self.wall_time().unwrap_or_default(),
            serial: self.serial_time(),
        };
        print(&named(
            &id,
            shown.is_some(),
            &summary.html(),
            &summary.text(),
        ))
    }
}

fn block(mime: &str, content: &str) -> String {
    format!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT\n")
}

/// A display that can be replaced later, or the replacement.
fn named(id: &str, update: bool, html: &str, text: &str) -> String {
    let display = format!("{{\"display_id\": \"{id}\", \"update\": {update}}}");
    block("application/x.chorus.display+json", &display)
        + &block("text/html", html)
        + &block("text/plain", text)
}

/// A progress bar.
fn bar((done, total): (usize, usize)) -> String {
    format!(
        "<progress value=\"{done}\" max=\"{}\" style=\"width:20em\"></progress> {done} of {total}",
        total.max(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_is_named_and_replaced() {
        assert_eq!(
            named("a", true, "<b>x</b>", "x"),
            "EVCXR_BEGIN_CONTENT application/x.chorus.display+json\n{\"display_id\": \"a\", \"update\": true}\nEVCXR_END_CONTENT\n\
             EVCXR_BEGIN_CONTENT text/html\n<b>x</b>\nEVCXR_END_CONTENT\n\
             EVCXR_BEGIN_CONTENT text/plain\nx\nEVCXR_END_CONTENT\n"
        );
        assert!(bar((0, 0)).contains("max=\"1\""));
    }
}
