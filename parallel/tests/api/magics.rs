//! What the cells of `%%parallel`, `%push` and their like call.

use super::cluster;
use chorus::__private::{Parallel, Variables};
use chorus::merge;
use chorus::wire::{Route, Work};
use std::collections::BTreeMap;

#[test]
fn a_body_runs_for_each_part_and_one_value_is_made() {
    let (carrier, client) = cluster(3);
    let words: Vec<String> = "a b a c b a".split(' ').map(str::to_owned).collect();
    let stop = vec!["c".to_owned()];
    let counts = Parallel::through(client.clone(), "all", None)
        .over(&words)
        .with(&stop)
        .with(&2u64)
        .each(|(((), stop), weight), words| {
            let mut counts = BTreeMap::new();
            for word in words.into_iter().filter(|word| !stop.contains(word)) {
                *counts.entry(word).or_insert(0) += weight;
            }
            counts
        })
        .merge(merge::counts)
        .unwrap();
    assert_eq!(
        counts,
        BTreeMap::from([("a".to_owned(), 6), ("b".to_owned(), 4)])
    );
    let submission = carrier.seen().pop().unwrap();
    assert_eq!(submission.tasks.len(), 3);
    assert_eq!(
        (submission.route, submission.shared.len()),
        (Route::Direct, 1)
    );
    assert_eq!(submission.label.as_deref(), Some("%%parallel"));
}

#[test]
fn parts_are_in_order_however_many() {
    let (carrier, client) = cluster(2);
    for balanced in [false, true] {
        let parallel = Parallel::through(client.clone(), "all", None).chunks(7);
        let parallel = if balanced {
            parallel.balanced()
        } else {
            parallel
        };
        let parts = parallel
            .over(&(0..100u64))
            .each(|(), part| part)
            .all()
            .unwrap();
        assert_eq!(parts.len(), 7);
        assert_eq!(
            parts.into_iter().flatten().collect::<Vec<u64>>(),
            (0..100).collect::<Vec<u64>>()
        );
        let submission = carrier.seen().pop().unwrap();
        let engines: Vec<Option<u32>> = submission.tasks.iter().map(|task| task.engine).collect();
        let expected = |at: u32| (!balanced).then_some(at % 2);
        assert_eq!(engines, (0..7).map(expected).collect::<Vec<_>>());
    }
    let parts = Parallel::through(client, "all", None)
        .balanced()
        .over(&[1u8; 3])
        .each(|(), part| part.len())
        .all();
    assert_eq!(parts.unwrap(), [1, 1, 1]);
}

#[test]
fn without_over_it_runs_once_on_each_engine() {
    let (_carrier, client) = cluster(3);
    let run = Parallel::through(client.clone(), "::2", None)
        .with(&"x".to_owned())
        .once(|((), text), ()| text.clone());
    assert_eq!(run.merge(merge::concat).unwrap(), "xx");
}

#[test]
fn errors_tell_the_part() {
    let (_carrier, client) = cluster(2);
    let run = |bad: u32| {
        Parallel::through(client.clone(), "all", None)
            .chunks(5)
            .over(&(0..50u32))
            .with(&bad)
            .each(|((), bad), mut part| assert!(!part.any(|n| n >= *bad), "bad {}", part.start))
            .all()
            .unwrap_err()
            .to_string()
    };
    let one = run(45);
    assert!(
        one.starts_with("[part 4: items 40 to 49, engine 0] panicked: bad 46"),
        "{one}"
    );
    let more = run(30);
    assert!(
        more.starts_with("2 of 5 failed\n  [part 3: items 30 to 39, engine 1] panicked: bad 31"),
        "{more}"
    );
    let empty = Parallel::through(client.clone(), "all", None)
        .over(&Vec::<u8>::new())
        .each(|(), part| part.len())
        .merge(merge::sum);
    assert_eq!(
        empty.unwrap_err().to_string(),
        "there is no value, since there were no items to reduce"
    );
    let nobody = Parallel::through(client, "7", None)
        .once(|(), ()| 1)
        .all()
        .unwrap_err();
    assert_eq!(
        nobody.to_string(),
        "there is no engine 7 (there are [0, 1])"
    );
}

#[test]
fn variables_go_there_and_back() {
    let (carrier, client) = cluster(3);
    let engines = Variables::through(&client, "all", Some(2.0));
    engines.push("text", &"abc".to_owned()).unwrap();
    assert_eq!(engines.pull::<String>("text").unwrap(), ["abc"; 3]);
    let numbers = [1.0, 2.0, 3.0, 4.0];
    engines.scatter("part", &numbers).unwrap();
    assert_eq!(
        engines.pull::<Vec<f64>>("part").unwrap(),
        [vec![1.0], vec![2.0], vec![3.0, 4.0]]
    );
    assert_eq!(engines.gather::<Vec<f64>>("part").unwrap(), numbers);
    let last = carrier.seen().pop().unwrap();
    assert!(
        matches!(&last.work, Work::Snippet { gives: Some(name), .. } if name == "part"),
        "{last:?}"
    );
    assert!(engines.pull::<u8>("nothing").is_err());
}
