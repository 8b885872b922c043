//! `chorus demo`: the word count's cells, one after another, without Jupyter.

use crate::evaluator::{Cell, Ending, Evaluator, NoInput};
use crate::output::Output;
use anyhow::bail;
use protocol::message::MimeBundle;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Evaluates the word count and prints what it shows.
pub(crate) async fn run(executable: PathBuf, folder: PathBuf) -> anyhow::Result<()> {
    let start = Instant::now();
    println!("Starting evcxr (a few seconds, once for a notebook) ...");
    let evaluator = Evaluator::start(executable, folder);
    let outcome = cells(&evaluator, start).await;
    evaluator.shutdown().await;
    outcome
}

async fn cells(evaluator: &Evaluator, start: Instant) -> anyhow::Result<()> {
    // The first answer comes when evcxr has started.
    evaluator.ask(|_| ()).await;
    println!("Ready after {:.1} s.\n", start.elapsed().as_secs_f64());
    for (count, code) in (1..).zip(examples::wordcount_cells()) {
        let cell = Cell {
            code: code.to_owned(),
            count,
        };
        match evaluator.evaluate(&cell, print, &mut NoInput).await {
            Ending::Done(Some(data)) => print_bundle(&data),
            Ending::Done(None) => {}
            Ending::Failed(error) => {
                bail!(
                    "cell {count} of the word count failed:\n{}",
                    error.traceback.join("\n")
                )
            }
        }
    }
    Ok(())
}

fn print(output: Output) {
    match output {
        Output::Stream(stream) => print!("{}", stream.text),
        Output::Display(display) => print_bundle(&display.data),
        Output::Update(update) => print_bundle(&update.data),
        Output::Clear(_) => {}
    }
    // A closed stdout is the reader's wish.
    let _ = std::io::stdout().flush();
}

fn print_bundle(data: &MimeBundle) {
    if let Some(text) = data.get("text/plain").and_then(Value::as_str) {
        println!("{}", text.trim_end());
    }
}
