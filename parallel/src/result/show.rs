//! How a result shows itself: in `Debug`, and as a notebook's display.

use super::table::{Summary, counted};
use super::watch::{self, Display};
use super::{AsyncResult, read, timeline};
use crate::error;
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// What is done before shows no bar.
const SOON: Duration = Duration::from_millis(50);

impl<T> fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tasks {
            Ok(_) => f.write_str(&self.stand()),
            Err(error) => write!(f, "AsyncResult({}: not submitted: {error})", self.name),
        }
    }
}

impl<T> AsyncResult<T> {
    /// What people know it by.
    fn title(&self) -> Cow<'static, str> {
        match self.label() {
            Some(label) => format!("{label} ({})", self.name).into(),
            None => self.name.into(),
        }
    }

    /// Where it stands, in one line.
    fn stand(&self) -> String {
        let (done, total) = self.progress();
        let tasks = self.answers();
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
            self.title(),
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

    /// Shows, in a notebook, a bar that moves until everything has ended, and then a table and a picture of what ran where. Waits as long. What
    /// interrupts the cell stops the tasks that it submitted, and no others.
    pub fn evcxr_display(&self) {
        // A closed stdout is no reason to panic.
        let _ = self.display(&mut watch::print);
    }

    fn display(&self, print: watch::Print<'_>) -> std::io::Result<()> {
        let handle = match &self.tasks {
            Ok(handle) => handle,
            Err(_) => return print(&watch::block("text/plain", &format!("{self:?}"))),
        };
        let mut display = Display::new(handle);
        let mut progress = || (self.progress(), self.stand());
        // A lost connection is told by the failed tasks below.
        let _ = watch::wait(handle, &mut display, Some(SOON), &mut progress, print);
        let tasks = self.metadata();
        let summary = Summary {
            title: &self.title(),
            tasks: &tasks,
            failed: read::failures(handle, self.kind),
            inputs: handle.batch.items(),
            wall: self.wall_time().unwrap_or_default(),
            serial: self.serial_time(),
        };
        let (mut html, mut text) = (summary.html(), summary.text());
        if summary.failed > 0 {
            let failed = read::some_failures(handle, self.kind);
            let mut list = String::new();
            let _ = error::listed(
                &mut list,
                &failed,
                summary.failed.saturating_sub(failed.len()),
            );
            let escaped = timeline::escaped(&list);
            let _ = write!(html, "<pre>{}</pre>", escaped.trim_start());
            text.push_str(&list);
        }
        display.show(&html, &text, print)
    }
}
