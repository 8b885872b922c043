//! Nothing is left behind, nothing grows.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Namespace, PATIENCE, artifact, cell, child_program, library};

/// Whether this process exists and is no zombie.
fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(!stat.rsplit_once(')')?.1.trim_start().starts_with('Z')))
        .unwrap_or(false)
}

/// Waits until a process that is ending has ended.
fn assert_gone(pid: u32) {
    let since = Instant::now();
    while lives(pid) {
        assert!(since.elapsed() < PATIENCE, "{pid} still lives");
        std::thread::yield_now();
    }
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect()
}

/// Prints worker, supervisor, and two children that user code leaves behind, one of them in a session of its own.
const FAMILY: &str = r#"
    let plain = std::process::Command::new("sleep").arg("1000").spawn().unwrap().id();
    let apart = std::process::Command::new("setsid").args(["sleep", "1000"]).spawn().unwrap().id();
    println!("{} {} {plain} {apart}", std::process::id(), std::os::unix::process::parent_id());"#;

#[tokio::test]
async fn shutdown_leaves_nothing() {
    let mut namespace = Namespace::start().await;
    let family = numbers(&namespace.good(FAMILY).await.stdout);
    assert!(family.iter().all(|pid| lives(*pid)), "{family:?}");
    namespace.runtime.shutdown().await;
    assert!(!family.iter().any(|pid| lives(*pid)), "{family:?}");
}

#[tokio::test]
async fn dropping_the_handle_leaves_nothing() {
    let mut namespace = Namespace::start().await;
    let family = numbers(&namespace.good(FAMILY).await.stdout);
    let run = namespace.send(cell("loop { std::hint::black_box(1); }"));
    drop(namespace.runtime);
    let mut ended = None;
    while let Some(event) = namespace.events.recv().await {
        if let runtime::Event::Finished { id, .. } = event {
            ended = Some(id);
        }
    }
    assert_eq!(ended, Some(run));
    family.into_iter().for_each(assert_gone);
}

#[tokio::test]
async fn an_owner_that_is_killed_leaves_nothing() {
    let library = library();
    for body in [
        format!("{FAMILY} loop {{ std::hint::black_box(1); }}"),
        FAMILY.to_owned(),
    ] {
        let mut owner = Command::new(child_program())
            .arg("owner")
            .args([&library.support, &library.libstd, &cell(&body)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(owner.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let family = numbers(&line);
        assert!(family.iter().all(|pid| lives(*pid)), "{family:?}");
        owner.kill().unwrap();
        owner.wait().unwrap();
        family.into_iter().for_each(assert_gone);
    }
}

#[tokio::test]
async fn an_interrupt_ends_what_the_cell_had_spawned() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .good("println!(\"{}\", std::process::Command::new(\"sleep\").arg(\"1000\").spawn().unwrap().id());")
        .await;
    let [before] = numbers(&ran.stdout)[..] else {
        panic!("{ran:?}");
    };
    // Process start times are told in steps of 10 ms.
    tokio::time::sleep(Duration::from_millis(30)).await;
    let run = namespace.send(cell(
        "let mut child = std::process::Command::new(\"sleep\").arg(\"1000\").spawn().unwrap();
         println!(\"{}\", child.id());
         child.wait().unwrap();",
    ));
    let within = loop {
        if let runtime::Event::Output { bytes, .. } = namespace.event().await {
            break numbers(std::str::from_utf8(&bytes).unwrap())[0];
        }
    };
    namespace.runtime.interrupt(run);
    namespace.finish(run).await;
    assert_gone(within);
    assert!(lives(before));
}

#[tokio::test]
async fn spawned_processes_inherit_only_the_standard_streams() {
    let mut namespace = Namespace::start().await;
    // Whoever started this test may have left more open, which all of us inherit.
    let here = Command::new("ls").arg("/proc/self/fd").output().unwrap();
    let ran = namespace
        .good("std::process::Command::new(\"ls\").arg(\"/proc/self/fd\").status().unwrap();")
        .await;
    assert_eq!(ran.stdout, String::from_utf8(here.stdout).unwrap());
    let ran = namespace
        .good("println!(\"{:?}\", std::env::vars().filter(|(k, _)| k.starts_with(\"CHORUS\")).count());")
        .await;
    assert_eq!(ran.stdout, "0\n");
}

#[tokio::test]
async fn a_process_forked_by_user_code_does_not_come_back() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .good("unsafe extern \"C\" { fn fork() -> i32; fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32; }
             let child = unsafe { fork() };
             println!(\"{}\", child == 0);
             if child > 0 { unsafe { waitpid(child, std::ptr::null_mut(), 0) }; }")
        .await;
    let mut lines: Vec<_> = ran.stdout.lines().collect();
    lines.sort();
    assert_eq!(lines, ["false", "true"]);
    namespace.fill().await;
    namespace.assert_filled().await;
}

#[tokio::test]
async fn two_hundred_runs_leave_no_trace() {
    let mut namespace = Namespace::start().await;
    let look = "let me = std::process::id();
        let stat = std::fs::read_to_string(\"/proc/self/statm\").unwrap();
        let fds = std::fs::read_dir(\"/proc/self/fd\").unwrap().count();
        let children = std::fs::read_to_string(format!(\"/proc/self/task/{me}/children\")).unwrap();
        println!(\"{} {fds} {}\", stat.split(' ').nth(1).unwrap(), children.split(' ').filter(|c| !c.is_empty()).count());";
    namespace.good(look).await;
    let before = numbers(&namespace.good(look).await.stdout);
    let empty = cell("");
    for _ in 0..200 {
        let run = namespace.send(empty.clone());
        namespace.finish(run).await;
    }
    let after = numbers(&namespace.good(look).await.stdout);
    // Resident pages, descriptors, children: the copy made for this run, and up to four that are just leaving.
    assert!(after[0] <= before[0] + 64, "{before:?} {after:?}");
    assert!(after[1] <= before[1] + 4, "{before:?} {after:?}");
    assert!(after[2] <= 5, "{before:?} {after:?}");
}

#[tokio::test]
async fn an_artifact_needs_no_variables() {
    let mut namespace = Namespace::start().await;
    let run = namespace.send(artifact(
        "#[unsafe(no_mangle)] pub extern \"C\" fn run(store: *mut u8) -> *mut u8 { println!(\"{}\", store.is_null()); store }",
    ));
    assert_eq!(namespace.finish(run).await.stdout, "true\n");
    namespace.fill().await;
    namespace.assert_filled().await;
}
