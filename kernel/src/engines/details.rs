//! What `%cluster status` tells of a cluster besides its engines.

use std::fs;
use std::time::Duration;

use cluster::launcher::{Process, State};
use magics::run::Cluster;
use serde_json::Value;
use tokio::time::timeout;

use super::{Attached, ids};

/// How long the hub may take to say how much there is to do.
const ANSWER: Duration = Duration::from_secs(1);

/// All there is to tell.
pub(super) async fn cluster(attached: &Attached) -> Cluster {
    let state = attached.state();
    let mut details = vec![whose(attached, state.as_ref())];
    if let Ok(files) = attached.profile.connection_files(&attached.cluster_id) {
        details.push(format!("connection file: {}", files.client.display()));
    }
    if let Some(state) = state {
        let prefix = match attached.cluster_id.as_str() {
            "" => String::new(),
            id => format!("{id}-"),
        };
        let logs = attached.profile.log().join(format!("{prefix}*.log"));
        details.push(format!("logs: {}", logs.display()));
        details.extend(compiler(&state));
        let memory = tokio::task::spawn_blocking(move || memory(&state)).await;
        details.extend(memory.ok().flatten());
    }
    let queue = attached.connection.queue_status(&[], false);
    if let Ok(Ok(queue)) = timeout(ANSWER, queue).await {
        details.push(work(&queue));
    }
    Cluster {
        name: attached.name().to_owned(),
        ids: ids(&attached.connection),
        details,
    }
}

fn whose(attached: &Attached, state: Option<&State>) -> String {
    match (&attached.own, state) {
        (Some(_), _) => "started by this notebook, and ends with it".to_owned(),
        (None, Some(state)) => format!(
            "not started by this notebook (its controller is in process {})",
            state.controller.pid
        ),
        (None, None) => {
            "not started by this notebook, and not by Chorus on this machine".to_owned()
        }
    }
}

fn compiler(state: &State) -> Option<String> {
    let compiler = state.compiler?;
    Some(match compiler.is_alive() {
        true => format!("compiler: runs (process {})", compiler.pid),
        false => "compiler: has ended; engines ask the compile service themselves".to_owned(),
    })
}

/// The hub's numbers in a line.
fn work(queue: &Value) -> String {
    let sum = |name: &str| -> u64 {
        let engines = queue.as_object().into_iter().flat_map(|map| map.values());
        engines.filter_map(|engine| engine[name].as_u64()).sum()
    };
    let (waiting, done) = (sum("queue") + sum("tasks"), sum("completed"));
    let unassigned = queue["unassigned"].as_u64().unwrap_or(0);
    let mut text = format!("requests: {waiting} running or waiting, {done} done");
    if unassigned > 0 {
        text.push_str(&format!("; {unassigned} tasks wait for an engine"));
    }
    text
}

/// What all processes take together that are the cluster's alone. Pages that several share are counted once.
fn memory(state: &State) -> Option<String> {
    let mut left: Vec<u32> = state
        .processes()
        .filter(|process| process.is_alive())
        .map(|Process { pid, .. }| pid)
        .collect();
    let (mut kilobytes, mut count) = (0, 0);
    while let Some(pid) = left.pop() {
        left.extend(children(pid));
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let mut lines = rollup.lines();
        let line = lines.find_map(|line| line.strip_prefix("Pss:"))?;
        kilobytes += line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        count += 1;
    }
    Some(format!(
        "memory: {} MB in {count} processes",
        kilobytes / 1000
    ))
}

/// The processes that a process started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace().map(str::parse);
            pids.flatten().collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hubs_numbers() {
        let queue = json!({"status": "ok", "unassigned": 0,
            "0": {"queue": 1, "tasks": 2, "completed": 4}, "1": {"queue": 0, "tasks": 0, "completed": 5}});
        assert_eq!(work(&queue), "requests: 3 running or waiting, 9 done");
        let queue = json!({"unassigned": 7});
        assert!(work(&queue).ends_with("0 done; 7 tasks wait for an engine"));
    }
}
