//! Runs code on all engines of a cluster, Chorus's or ipyparallel's, and prints what they say:
//!
//! ```text
//! cargo run --release -p chorus --features client --example execute -- CONNECTION_FILE CODE [TIMES]
//! ```
//!
//! With TIMES it runs the code again and again and prints how long that took.

use std::path::Path;
use std::time::{Duration, Instant};

use chorus::controller::{Connection, Ending, Output, Said};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, code, rest @ ..] = &arguments[..] else {
        return Err("usage: execute CONNECTION_FILE CODE [TIMES]".into());
    };
    let connection = Connection::open(Path::new(file), Duration::from_secs(5)).await?;
    let ids = connection.ids();
    println!("engines: {ids:?}");
    let times: usize = rest.first().map_or(Ok(0), |times| times.parse())?;
    let (_, mut sayings) = connection.run(&ids, code, false)?;
    while let Some((engine, said)) = sayings.recv().await {
        match said {
            Said::Output(Output::Stream(stream)) => print!("[{engine}] {}", stream.text),
            Said::Output(Output::Result(result)) => {
                println!(
                    "Out[{engine}:{}]: {}",
                    result.execution_count, result.data["text/plain"]
                );
            }
            Said::Lineage(_) => {}
            Said::Output(other) => println!("[{engine}] {other:?}"),
            Said::Ended(Ending::Failed(error)) => {
                println!("[{engine}] {}: {}", error.ename, error.evalue);
            }
            Said::Ended(ending) => println!("[{engine}] {ending:?}"),
        }
    }
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let (_, mut sayings) = connection.run(&ids, code, false)?;
        while sayings.recv().await.is_some() {}
        took.push(began.elapsed());
    }
    took.sort();
    if let Some(median) = took.get(times / 2) {
        println!(
            "{} engines: there and back in {median:?} (median of {times})",
            ids.len()
        );
    }
    connection.close().await;
    Ok(())
}
