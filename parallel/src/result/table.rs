//! What the engines did, in numbers: as text and as HTML. Pure.

use super::timeline::{self, Bar};
use crate::batch::Metadata;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// A call that ended.
#[derive(Clone, Debug)]
pub(super) struct Summary<'a> {
    pub(super) title: &'a str,
    pub(super) tasks: &'a [Metadata],
    /// Inputs that failed, and all.
    pub(super) failed: usize,
    pub(super) inputs: usize,
    pub(super) wall: Duration,
    pub(super) serial: Duration,
}

#[derive(Debug, Default)]
struct Row {
    tasks: usize,
    inputs: usize,
    failed: usize,
    busy: f64,
}

/// Rows that are shown.
const ROWS: usize = 64;

impl Summary<'_> {
    fn rows(&self) -> BTreeMap<Option<u32>, Row> {
        let mut rows: BTreeMap<Option<u32>, Row> = BTreeMap::new();
        for task in self.tasks {
            let row = rows.entry(task.engine).or_default();
            row.tasks += 1;
            row.inputs += task.inputs.len();
            row.failed += usize::from(task.success == Some(false));
            row.busy += length(task);
        }
        rows
    }

    /// One line that says all.
    pub(super) fn line(&self) -> String {
        let mut line = format!(
            "{}: {} in {} {}, {:.3?}",
            self.title,
            counted(self.inputs, "item"),
            counted(self.tasks.len(), "task"),
            match self.failed {
                0 => "done".to_owned(),
                failed => format!("done, {failed} failed"),
            },
            self.wall,
        );
        if self.wall > Duration::ZERO && self.serial > Duration::ZERO {
            let speedup = self.serial.as_secs_f64() / self.wall.as_secs_f64();
            let _ = write!(
                line,
                " (engines worked {:.3?}: {speedup:.2} times faster than one)",
                self.serial
            );
        }
        line
    }

    fn cells(&self) -> Vec<[String; 6]> {
        let wall = self.wall.as_secs_f64();
        self.rows()
            .into_iter()
            .take(ROWS)
            .map(|(engine, row)| {
                let share = if wall > 0.0 {
                    100.0 * row.busy / wall
                } else {
                    0.0
                };
                [
                    engine.map_or("none".to_owned(), |engine| engine.to_string()),
                    row.tasks.to_string(),
                    row.inputs.to_string(),
                    row.failed.to_string(),
                    format!(
                        "{:.3?}",
                        Duration::try_from_secs_f64(row.busy).unwrap_or_default()
                    ),
                    format!("{share:.0} %"),
                ]
            })
            .collect()
    }

    pub(super) fn text(&self) -> String {
        let mut out = self.line();
        let rows: Vec<[String; 6]> = std::iter::once(HEAD.map(str::to_owned))
            .chain(self.cells())
            .collect();
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        for row in &rows {
            out.push_str("\n ");
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(out, " {cell:>width$}");
            }
        }
        out
    }

    pub(super) fn html(&self) -> String {
        let mut out = format!(
            "<p>{}</p><table><thead><tr>",
            timeline::escaped(&self.line())
        );
        for head in HEAD {
            let _ = write!(out, "<th>{head}</th>");
        }
        out.push_str("</tr></thead><tbody>");
        for row in self.cells() {
            out.push_str("<tr>");
            for cell in row {
                let _ = write!(out, "<td>{cell}</td>");
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table>");
        let bars: Vec<Bar> = self.tasks.iter().filter_map(bar).collect();
        let from = bars.iter().map(|bar| bar.start).reduce(f64::min);
        let to = bars.iter().map(|bar| bar.end).reduce(f64::max);
        if let (Some(from), Some(to)) = (from, to) {
            out.push_str(&timeline::svg(&bars, from, to));
        }
        out
    }
}

const HEAD: [&str; 6] = ["engine", "tasks", "items", "failed", "busy", "of the time"];

fn length(task: &Metadata) -> f64 {
    match (task.started, task.completed) {
        (Some(started), Some(completed)) => (completed - started).max(0.0),
        _ => 0.0,
    }
}

fn bar(task: &Metadata) -> Option<Bar> {
    let (start, end) = (task.started?, task.completed?);
    let inputs = match task.inputs.len() {
        1 => format!("item {}", task.inputs.start),
        _ => format!(
            "items {} to {}",
            task.inputs.start,
            task.inputs.end.saturating_sub(1)
        ),
    };
    let took = Duration::try_from_secs_f64(end - start).unwrap_or_default();
    let failed = task.success == Some(false);
    let how = if failed { ", failed" } else { "" };
    Some(Bar {
        engine: task.engine?,
        start,
        end,
        failed,
        title: format!("{inputs}: {took:.3?}{how}"),
    })
}

pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(engine: u32, inputs: std::ops::Range<usize>, from: f64, to: f64) -> Metadata {
        Metadata {
            inputs,
            engine: Some(engine),
            submitted: 100.0,
            started: Some(from),
            completed: Some(to),
            success: Some(engine != 1),
        }
    }

    #[test]
    fn a_table_of_what_engines_did() {
        let tasks = [
            task(0, 0..4, 100.0, 101.0),
            task(1, 4..8, 100.0, 100.5),
            task(0, 8..9, 101.0, 101.5),
        ];
        let summary = Summary {
            title: "map",
            tasks: &tasks,
            failed: 4,
            inputs: 9,
            wall: Duration::from_secs_f64(1.5),
            serial: Duration::from_secs(2),
        };
        assert_eq!(
            summary.text(),
            "map: 9 items in 3 tasks done, 4 failed, 1.500s (engines worked 2.000s: 1.33 times faster than one)\n  \
             engine tasks items failed      busy of the time\n       \
             0     2     5      0    1.500s       100 %\n       \
             1     1     4      1 500.000ms        33 %"
        );
        let html = summary.html();
        assert!(
            html.contains("<td>500.000ms</td>")
                && html.contains("<svg")
                && html.matches("<rect").count() == 3
                && html.contains("<title>items 4 to 7: 500.000ms, failed</title>")
        );
    }
}
