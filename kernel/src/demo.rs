//! `chorus demo`: the word count's cells, one after another, without Jupyter.

use crate::carrier::Door;
use crate::cells::Cells;
use crate::evaluator::{Cell, Evaluator, NoInput};
use anyhow::bail;
use cluster::output::Output;
use protocol::message::MimeBundle;
use protocol::message::iopub::CompileStatus;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// To the line's beginning, and erase to its end.
const ERASE: &str = "\r\x1b[K";

/// Evaluates the word count and prints what it shows.
pub(crate) async fn run(executable: PathBuf, folder: PathBuf) -> anyhow::Result<()> {
    let start = Instant::now();
    println!("Starting Chorus ...");
    let door = Door::open()?;
    let evaluator = Evaluator::start(executable.clone(), folder, Some(door.path()));
    let cells = Cells::new(evaluator.clone(), executable, Some(door));
    // Answered when cells can be compiled and run; what is known needs no evcxr.
    evaluator.variables().await;
    println!("Ready after {:.1} s.\n", start.elapsed().as_secs_f64());
    let outcome = tokio::select! {
        outcome = count_words(&cells) => outcome,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    cells.shutdown().await;
    outcome
}

async fn count_words(cells: &Cells) -> anyhow::Result<()> {
    for (count, code) in (1..).zip(examples::wordcount_cells()) {
        let cell = Cell {
            code: code.to_owned(),
            count,
            ..Cell::default()
        };
        let screen = Arc::new(Screen::default());
        let shown = Arc::clone(&screen);
        let show = Arc::new(move |output| shown.print(output));
        let outcome = cells
            .run(&cell, show, &mut NoInput, cells.interrupts())
            .await;
        screen.finish();
        match outcome {
            Ok(Some(data)) => print_bundle(&data),
            Ok(None) => {}
            Err(error) => {
                bail!(
                    "cell {count} of the word count failed:\n{}",
                    error.traceback.join("\n")
                )
            }
        }
    }
    Ok(())
}

/// What a cell shows, on a terminal: it can't take back what it has printed, so of displays that change only the first and the last state are.
/// What a cell waits for is a line that is written over.
#[derive(Default)]
struct Screen {
    /// The state of each display that has changed, by its name.
    changed: Mutex<BTreeMap<Option<String>, MimeBundle>>,
    /// Whether there is something that a line could be written over.
    has_output: AtomicBool,
}

impl Screen {
    fn print(&self, output: Output) {
        let is_line = matches!(output, Output::CompileStatus(_));
        if is_line && (self.has_output.load(Ordering::Relaxed) || !std::io::stdout().is_terminal())
        {
            return;
        }
        self.has_output.fetch_or(!is_line, Ordering::Relaxed);
        match output {
            Output::Stream(stream) => print!("{}", stream.text),
            Output::Display(display) => print_bundle(&display.data),
            Output::Update(update) => {
                let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
                changed.insert(update.transient.display_id, update.data);
            }
            Output::Clear(_) => {}
            Output::CompileStatus(CompileStatus { activity }) => {
                print!("{ERASE}{}", activity.unwrap_or_default());
            }
        }
        // A closed stdout is the reader's wish.
        let _ = std::io::stdout().flush();
    }

    /// The cell has ended.
    fn finish(&self) {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.values().for_each(print_bundle);
    }
}

fn print_bundle(data: &MimeBundle) {
    if let Some(text) = data.get("text/plain").and_then(Value::as_str) {
        println!("{}", text.trim_end());
    }
}
