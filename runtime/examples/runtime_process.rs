//! Plays `chorus runtime` for the tests; with the argument `owner`, a kernel that can be killed.

use std::path::PathBuf;
use std::process::Command;

use runtime::{Config, Event, RunId, Runtime, Snippet};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("owner") {
        runtime::child_main();
    }
    let mut path = || {
        arguments
            .next()
            .map(PathBuf::from)
            .ok_or("a path is missing")
    };
    let (support, libstd, artifact) = (path()?, path()?, path()?);
    let mut config = Config::new(Command::new(std::env::current_exe()?), support);
    config.preload.push(libstd);
    let tokio = tokio::runtime::Runtime::new()?;
    tokio.block_on(async {
        let (runtime, mut events) = Runtime::start(config).await?;
        runtime.run(Snippet {
            id: RunId(1),
            artifact,
            entry: "run".to_owned(),
            checkpoint: true,
        });
        while let Some(event) = events.recv().await {
            if let Event::Output { bytes, .. } = event {
                println!("{}", String::from_utf8_lossy(&bytes).trim_end());
            }
        }
        Ok(())
    })
}
