//! Prints what things cost: `cargo test --release -p runtime -- --ignored --nocapture measure`.

use std::time::{Duration, Instant};

use crate::support::{Namespace, cell};

/// Resident and private memory of a process, in kB.
fn memory(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let sum = |names: &[&str]| {
        text.lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .map(|line| {
                line.split_whitespace()
                    .nth(1)
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum()
    };
    (sum(&["Rss:"]), sum(&["Private_Clean:", "Private_Dirty:"]))
}

async fn latency(namespace: &mut Namespace, what: &str) {
    let empty = cell("");
    let mut times = Vec::new();
    for _ in 0..200 {
        let since = Instant::now();
        let run = namespace.send(empty.clone());
        namespace.finish(run).await;
        times.push(since.elapsed());
    }
    times.sort();
    println!(
        "{what}: median {:?}, 90 % {:?}, worst {:?}",
        times[100], times[180], times[199]
    );
}

/// What the fork costs when no earlier copy is just leaving.
async fn quiet_forks(namespace: &mut Namespace, what: &str) {
    let empty = cell("");
    let mut times = Vec::new();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let since = Instant::now();
        let run = namespace.send(empty.clone());
        while !matches!(namespace.event().await, runtime::Event::Started { .. }) {}
        times.push(since.elapsed());
        namespace.finish(run).await;
    }
    times.sort();
    println!("{what}: median {:?}, worst {:?}", times[10], times[19]);
}

#[tokio::test]
#[ignore = "prints, asserts nothing"]
async fn measure() {
    drop(cell(""));
    let mut starts: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        let since = Instant::now();
        let namespace = Namespace::start().await;
        starts.push(since.elapsed());
        namespace.runtime.shutdown().await;
    }
    starts.sort();
    println!(
        "start to ready: median {:?}, worst {:?}",
        starts[10], starts[19]
    );

    let mut namespace = Namespace::start().await;
    let ran = namespace
        .good("println!(\"{} {}\", std::process::id(), std::os::unix::process::parent_id());")
        .await;
    for (pid, name) in ran.stdout.split_whitespace().zip(["worker", "supervisor"]) {
        let (resident, private) = memory(pid.parse().unwrap());
        println!("{name}: {resident} kB resident, {private} kB private");
    }
    latency(&mut namespace, "empty cell with checkpoint").await;
    namespace.runtime.set_checkpoint(false, 0);
    latency(&mut namespace, "empty cell without").await;
    namespace.runtime.set_checkpoint(true, u64::MAX);
    quiet_forks(&mut namespace, "run to Started, small").await;
    namespace
        .good("store.put_variable(\"big\", vec![1_u8; 1_000_000_000]);")
        .await;
    quiet_forks(&mut namespace, "run to Started, 1 GB").await;
    latency(&mut namespace, "empty cell with checkpoint, 1 GB").await;
    let run = namespace.send(cell("println!(); loop { std::hint::black_box(1); }"));
    loop {
        if matches!(namespace.event().await, runtime::Event::Output { .. }) {
            break;
        }
    }
    let since = Instant::now();
    namespace.runtime.interrupt(run);
    namespace.finish(run).await;
    println!("interrupt at 1 GB: {:?}", since.elapsed());
    let since = Instant::now();
    let ran = namespace
        .good("for i in 0..1_000_000 { println!(\"line {i}\"); }")
        .await;
    println!(
        "a million lines: {:?} in {} events",
        since.elapsed(),
        ran.chunks
    );
}
