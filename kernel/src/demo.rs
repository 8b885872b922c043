//! `chorus demo`: the word count's cells, one after another, without Jupyter.

use crate::carrier::Door;
use crate::cells::Cells;
use crate::evaluator::{Cell, Evaluator, NoInput};
use anyhow::bail;
use cluster::output::Output;
use protocol::message::MimeBundle;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Evaluates the word count and prints what it shows.
pub(crate) async fn run(executable: PathBuf, folder: PathBuf) -> anyhow::Result<()> {
    let start = Instant::now();
    println!("Starting evcxr (a few seconds, once for a notebook) ...");
    let door = Door::open()?;
    let evaluator = Evaluator::start(executable.clone(), folder, Some(door.path()));
    let cells = Cells::new(evaluator.clone(), executable, Some(door));
    // The first answer comes when evcxr has started.
    evaluator.ask(|_| ()).await;
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
        match cells.run(&cell, Arc::new(print), &mut NoInput).await {
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

fn print(output: Output) {
    match output {
        Output::Stream(stream) => print!("{}", stream.text),
        Output::Display(display) => print_bundle(&display.data),
        // Progress, which a terminal can't take back.
        Output::Update(_) | Output::Clear(_) => {}
    }
    // A closed stdout is the reader's wish.
    let _ = std::io::stdout().flush();
}

fn print_bundle(data: &MimeBundle) {
    if let Some(text) = data.get("text/plain").and_then(Value::as_str) {
        println!("{}", text.trim_end());
    }
}
