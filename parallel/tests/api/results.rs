//! What is known of a call while and after it runs.

use super::{Gate, SOON, cluster};
use chorus::{AsyncResult, Error, merge};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

#[test]
fn where_it_stands() {
    static GATE: Gate = Gate::new();
    let (_carrier, client) = cluster(2);
    let view = client.load_balanced_view().chunk_size(2);
    let result = view.map(0..6u32, |x| {
        if x >= 4 {
            GATE.pass();
        }
        x
    });
    let mut iter = result.iter();
    let first: Vec<u32> = iter.by_ref().take(4).map(Result::unwrap).collect();
    assert_eq!(first, [0, 1, 2, 3]);
    assert_eq!(result.progress(), (4, 6));
    assert_eq!(result.tasks(), 3);
    assert!(
        !result.ready()
            && !result.successful()
            && result.wall_time().is_none()
            && result.completed().is_none()
    );
    assert!(!result.wait_timeout(Duration::from_millis(10)));
    let error = result.get_timeout(Duration::from_millis(10)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TimedOut {
                done: 4,
                total: 6,
                ..
            }
        ),
        "{error}"
    );
    let stand = format!("{result:?}");
    assert!(
        stand.starts_with("AsyncResult(map: 4 of 6 items, "),
        "{stand}"
    );
    GATE.open();
    assert_eq!(iter.map(Result::unwrap).collect::<Vec<u32>>(), [4, 5]);
    assert!(result.ready() && result.successful());
    assert_eq!(result.get().unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(result.get().unwrap().len(), 6);
    assert!(
        format!("{result:?}").starts_with("AsyncResult(map: 6 of 6 items, done in "),
        "{result:?}"
    );
    let tasks = result.metadata();
    assert_eq!(
        tasks
            .iter()
            .map(|task| task.inputs.clone())
            .collect::<Vec<_>>(),
        [0..2, 2..4, 4..6]
    );
    assert!(
        tasks
            .iter()
            .all(|task| task.success == Some(true) && task.completed >= task.started)
    );
    assert!(result.started().unwrap() >= result.submitted().unwrap());
    assert!(result.serial_time() > Duration::ZERO);
    let speedup = result.serial_time().as_secs_f64() / result.wall_time().unwrap().as_secs_f64();
    assert!((result.speedup().unwrap() - speedup).abs() < 1e-9);
}

#[test]
fn what_waits_can_be_aborted() {
    static GATE: Gate = Gate::new();
    let (_carrier, client) = cluster(1);
    let view = client.load_balanced_view().chunk_size(1);
    let result = view.map(0..5u32, |x| {
        GATE.pass();
        x
    });
    let begun = |result: &AsyncResult<Vec<u32>>| result.metadata()[0].started.is_some();
    let deadline = Instant::now() + SOON;
    while !begun(&result) {
        assert!(Instant::now() < deadline);
        result.wait_timeout(Duration::from_millis(5));
    }
    result.abort().unwrap();
    GATE.open();
    let all = result.results().unwrap();
    assert_eq!(*all[0].as_ref().unwrap(), 0);
    assert!(
        all[1..]
            .iter()
            .all(|result| { result.as_ref().unwrap_err().tasks()[0].ename == "TaskAborted" })
    );
    assert!(result.ready() && !result.successful());
    result.abort().unwrap();
    let error = result.get().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("4 of 5 failed; `results()` has the others\n  [item 1] TaskAborted: "),
        "{error}"
    );
    client.abort().unwrap();
}

#[test]
fn maps_are_added_up_as_they_come() {
    let (_carrier, client) = cluster(2);
    let letters = |word: String| -> HashMap<char, usize> {
        assert!(word != "bad", "a bad word");
        let mut counts = HashMap::new();
        word.chars()
            .for_each(|c| *counts.entry(c).or_insert(0) += 1);
        counts
    };
    let words =
        |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
    let expected = HashMap::from([('a', 3), ('b', 2), ('c', 1)]);
    let balanced = client.load_balanced_view();
    for chunk in [1, 3] {
        let result = balanced
            .clone()
            .chunk_size(chunk)
            .map(words(&["ab", "a", "bac"]), letters);
        assert_eq!(result.counts().unwrap(), expected);
        assert_eq!(result.counts().unwrap(), expected);
    }
    let everywhere = client.all().apply(letters, "aab".to_owned());
    assert_eq!(
        everywhere.counts().unwrap(),
        HashMap::from([('a', 4), ('b', 2)])
    );
    let tree = client.all().apply(|n: u32| BTreeMap::from([(n, 0.5)]), 7);
    assert_eq!(tree.counts().unwrap(), BTreeMap::from([(7, 1.0)]));
    let gathered = client
        .all()
        .gather::<HashMap<char, usize>>("no such variable");
    assert!(gathered.counts().is_err());
    // A vector that is one task's result, and one that several tasks' results are made into.
    let maps = |n: usize| {
        vec![
            HashMap::from([('a', n)]),
            HashMap::from([('a', 1), ('b', n)]),
        ]
    };
    let one = balanced.apply(maps, 2);
    assert_eq!(one.counts().unwrap(), HashMap::from([('a', 3), ('b', 2)]));
    assert_eq!(one.iter().count(), 2);
    let one = balanced
        .clone()
        .chunk_size(1)
        .map_reduce([1, 2], maps, merge::concat);
    assert_eq!(one.counts().unwrap(), HashMap::from([('a', 5), ('b', 3)]));
    let items: Vec<_> = one
        .results()
        .unwrap()
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(items, [maps(1), maps(2)].concat());
    assert_eq!(
        one.as_completed().map(|(at, _)| at).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    let nothing = balanced.map(words(&[]), letters);
    assert!(nothing.counts().unwrap().is_empty());
    let error = balanced
        .map(words(&["a", "bad", "b"]), letters)
        .counts()
        .unwrap_err();
    assert_eq!(
        (error.tasks()[0].index, error.tasks().len()),
        (Some(1), 1),
        "{error}"
    );
}

#[test]
fn many_threads_wait_for_many_results() {
    let (_carrier, client) = cluster(2);
    std::thread::scope(|scope| {
        for n in 0..8u32 {
            let view = client.load_balanced_view();
            scope.spawn(move || {
                for round in 0..50 {
                    let sum = view.apply(|(a, b): (u32, u32)| a + b, (n, round));
                    assert_eq!(sum.get_timeout(SOON).unwrap(), n + round);
                }
            });
        }
    });
}

/// What an ignored test prints. A display goes to its process's output, so another process shows it: this program, told to run only that test.
fn printed(test: &str) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn thousands_of_failures_make_a_short_list() {
    let text = printed("results::shown_failures");
    assert!(
        text.contains("map: 5000 items in 5 tasks done, 5000 failed"),
        "{text}"
    );
    let (_, last) = text.rsplit_once("text/plain").unwrap();
    let listed: Vec<&str> = last.lines().filter(|it| it.contains("bad ")).collect();
    assert!(
        listed.len() == 8 && listed[0].contains("item 0, "),
        "{last}"
    );
    assert!(last.contains("and 4992 others"), "{last}");
}

#[test]
#[ignore = "prints what the test above looks at"]
fn shown_failures() {
    let (_carrier, client) = cluster(2);
    let view = client.load_balanced_view().chunk_size(1000);
    let result = view.map(0..5000u32, |x| -> u32 { panic!("bad {x}") });
    result.wait();
    result.evcxr_display();
}

#[test]
fn a_display_waits_and_shows_what_ran_where() {
    let text = printed("results::shown");
    let displays: Vec<&str> = text
        .split("EVCXR_BEGIN_CONTENT application/x.chorus.display+json\n")
        .collect();
    let (first, last) = (displays[1], displays[displays.len() - 1]);
    assert!(
        displays.len() > 2 && first.contains("\"update\": false") && first.contains("<progress "),
        "{text}"
    );
    assert!(
        last.contains("\"update\": true") && last.contains("<table>") && last.contains("<svg "),
        "{text}"
    );
    assert!(
        last.contains("map: 4 items in 4 tasks done, 1 failed"),
        "{text}"
    );
    let id = |display: &str| display.split('"').nth(3).unwrap().to_owned();
    assert_eq!(id(first), id(last));
}

#[test]
#[ignore = "prints what the test above looks at"]
fn shown() {
    static GATE: Gate = Gate::new();
    let (_carrier, client) = cluster(2);
    let result = client.load_balanced_view().chunk_size(1).map(0..4u32, |x| {
        if x == 3 {
            GATE.pass();
        }
        assert!(x != 2, "two");
        x
    });
    for done in result.as_completed().take(3) {
        drop(done);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The bar has been shown before; the picture comes after this.
            std::thread::sleep(Duration::from_millis(600));
            GATE.open();
        });
        result.evcxr_display();
    });
}

/// One vector codec a chunk: what a map costs beside the function itself. Times are of this process, whose threads the engines are.
#[test]
fn a_million_small_items_cost_little_more_than_a_loop() {
    fn collatz(start: u64) -> u64 {
        let (mut n, mut steps) = (start + 1, 0);
        while n != 1 {
            n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
            steps += 1;
        }
        steps
    }
    fn cpu() -> Duration {
        // SAFETY: writes one structure.
        let usage = unsafe {
            let mut usage = std::mem::zeroed::<libc::rusage>();
            libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
            usage
        };
        let time =
            |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        time(usage.ru_utime) + time(usage.ru_stime)
    }
    let (_carrier, client) = cluster(2);
    let items: Vec<u64> = (0..1_000_000).collect();
    // Other tests run beside this one, so the best of some rounds counts.
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let before = cpu();
        let serial: Vec<u64> = items.iter().map(|x| collatz(*x)).collect();
        let between = cpu();
        let parallel = client
            .load_balanced_view()
            .map_sync(&items, collatz)
            .unwrap();
        let (loop_time, map_time) = (between - before, cpu() - between);
        assert_eq!(parallel, serial);
        let extra = map_time
            .saturating_sub(Duration::from_millis(50))
            .as_secs_f64();
        best = best.min(extra / loop_time.as_secs_f64());
        println!("loop {loop_time:?}, map {map_time:?}");
    }
    assert!(best < 1.5, "{best}");
}
