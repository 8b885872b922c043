//! A stand-alone program, which is this test's own: its closures run on a cluster of real processes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use chorus::serde::{Deserialize, Serialize, de::DeserializeOwned};
use chorus::wire::FailureKind;
use chorus::{Client, Error};
use common::Cluster;

fn cluster(engines: u32) -> (Cluster, Client) {
    let cluster = Cluster::start(engines);
    let client = Client::from_connection_file(&cluster.file).unwrap();
    (cluster, client)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(crate = "chorus::serde")]
struct Point<T> {
    at: (T, T),
    name: Option<String>,
}

fn twice<T: Copy + std::ops::Add<Output = T> + Serialize + DeserializeOwned>(
    point: Point<T>,
) -> Point<T> {
    let (x, y) = point.at;
    Point {
        at: (x + x, y + y),
        ..point
    }
}

#[test]
fn closures_of_this_program_run_on_engines() {
    let (_cluster, client) = cluster(2);
    assert_eq!(client.ids().unwrap(), [0, 1]);
    let pids = client
        .all()
        .apply_sync(|()| std::process::id(), ())
        .unwrap();
    let different: HashSet<u32> = pids.into_iter().chain([std::process::id()]).collect();
    assert_eq!(different.len(), 3);

    let view = client.load_balanced_view();
    let squares = view.map_sync(0..10_000u64, |x| x * x).unwrap();
    assert_eq!(squares, (0..10_000u64).map(|x| x * x).collect::<Vec<_>>());
    let point = Point {
        at: (1.5, -2.0),
        name: Some("p".to_owned()),
    };
    assert_eq!(
        view.apply_sync(twice::<f64>, point.clone()).unwrap().at,
        (3.0, -4.0)
    );
    assert_eq!(
        view.apply_sync(
            twice::<i32>,
            Point {
                at: (1, 2),
                name: None
            }
        )
        .unwrap()
        .at,
        (2, 4)
    );

    let table: BTreeMap<String, u32> = [("a".to_owned(), 1), ("b".to_owned(), 2)].into();
    let looked_up = view.map_with(
        &table,
        vec!["b".to_owned(), "c".to_owned()],
        |table, key| table.get(&key).copied(),
    );
    assert_eq!(looked_up.get().unwrap(), [Some(2), None]);

    let large: Vec<f64> = (0..1_000_000).map(f64::from).collect();
    let back = client.all().apply_sync(
        |mut large: Vec<f64>| {
            large.reverse();
            large
        },
        large,
    );
    for back in back.unwrap() {
        assert_eq!((back.len(), back[0]), (1_000_000, 999_999.0));
    }
}

#[test]
fn panics_and_deaths_cost_their_own_task_only() {
    let (_cluster, client) = cluster(2);
    let view = client.load_balanced_view().chunk_size(2);
    let result = view.map(0..8i32, |x| 100 / (x - 5));
    let all = result.results().unwrap();
    assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 7);
    let error = result.get().unwrap_err();
    let [task] = error.tasks() else {
        panic!("{error}")
    };
    assert_eq!(
        (task.kind, task.index, task.evalue.as_str()),
        (FailureKind::Panic, Some(5), "attempt to divide by zero")
    );
    let location = task.location.clone().unwrap();
    assert!(
        location.file.ends_with("programs.rs") && location.line > 50,
        "{error}"
    );

    let died = view
        .apply_sync(|()| -> () { std::process::abort() }, ())
        .unwrap_err();
    let text = died.to_string();
    assert!(text.contains("SIGABRT"), "{text}");
    assert_eq!(client.ids().unwrap(), [0, 1]);
    assert_eq!(client.all().apply_sync(|x: u8| x + 1, 1).unwrap(), [2, 2]);
}

/// Engines switch between a program's closures, another program's and snippets without losing anything of either.
#[test]
fn snippets_and_closures_take_turns() {
    let (cluster, client) = cluster(1);
    let other = Client::from_connection_file(&cluster.file).unwrap();
    let all = client.all();
    all.execute("let kept = 5;").get().unwrap();
    for round in 0..3u32 {
        assert_eq!(all.apply_sync(|n: u32| n + 1, round).unwrap(), [round + 1]);
        let shown = all.execute("6 * 7").get().unwrap();
        assert_eq!(shown[0].text(), Some("42"));
        assert_eq!(
            other.all().apply_sync(|n: u32| n * 2, round).unwrap(),
            [round * 2]
        );
    }
}

#[test]
fn what_cannot_be_reached_is_told_with_what_to_do() {
    let missing = Client::connect_to("default", "no-such-cluster").unwrap_err();
    let text = missing.to_string();
    assert!(
        text.contains("no-such-cluster") && text.contains("chorus cluster start"),
        "{text}"
    );
    let missing = Client::from_connection_file(Path::new("/nowhere/x.json")).unwrap_err();
    assert!(matches!(missing, Error::Connect { .. }), "{missing}");

    let (cluster, client) = cluster(1);
    let slow = client
        .all()
        .apply(|()| std::thread::sleep(Duration::from_secs(600)), ());
    drop(cluster);
    let lost = slow.get().unwrap_err();
    assert!(!lost.to_string().is_empty(), "{lost}");
}
