//! Calls on views, and what gets to the engines.

use super::{Gate, SOON, cluster};
use chorus::serde::{Deserialize, Serialize};
use chorus::wire::{Route, Span, Work};
use chorus::{After, Client, Error};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(crate = "chorus::serde")]
enum Animal {
    Cat { lives: u8 },
    Fish(String, Vec<f32>),
}

fn double<T: std::ops::Add<Output = T> + Copy>(value: T) -> T {
    value + value
}

#[test]
fn apply_runs_on_each_engine() {
    let (_carrier, client) = cluster(3);
    let view = client.all();
    assert_eq!(view.apply_sync(|x: i64| x - 1, 8).unwrap(), [7, 7, 7]);
    assert_eq!(
        view.apply_sync(
            |(a, b): (String, u8)| a.repeat(b.into()),
            ("ab".to_owned(), 2)
        )
        .unwrap(),
        ["abab"; 3]
    );
    assert_eq!(
        client.direct_view(1).apply_sync(double::<u64>, 21).unwrap(),
        [42]
    );
    assert_eq!(client.direct_view([2, 0]).targets().unwrap(), [2, 0]);
    let names = view.apply(
        |()| std::thread::current().id() == std::thread::current().id(),
        (),
    );
    assert_eq!(names.get().unwrap(), [true; 3]);
    assert_eq!(names.engines(), [0, 1, 2]);
}

#[test]
fn maps_give_results_in_the_order_of_their_inputs() {
    let (_carrier, client) = cluster(3);
    let words = ["one", "two", "three", "four"].map(str::to_owned);
    let lengths = [3usize, 3, 5, 4];
    for items in [0, 1, 2, 3, 10, 1000] {
        let numbers: Vec<u32> = (0..items).collect();
        let squares: Vec<u64> = numbers.iter().map(|x| u64::from(*x).pow(2)).collect();
        assert_eq!(
            client
                .all()
                .map_sync(&numbers, |x| u64::from(x).pow(2))
                .unwrap(),
            squares
        );
        let balanced = client.load_balanced_view();
        assert_eq!(
            balanced
                .map_sync(&numbers, |x| u64::from(x).pow(2))
                .unwrap(),
            squares
        );
        assert_eq!(
            balanced
                .chunk_size(7)
                .map_sync(0..items, |x| u64::from(x).pow(2))
                .unwrap(),
            squares
        );
    }
    assert_eq!(
        client.all().map_sync(&words, |word| word.len()).unwrap(),
        lengths
    );
    assert_eq!(
        client
            .load_balanced_view()
            .map_sync(words.to_vec(), |word| word.len())
            .unwrap(),
        lengths
    );
    let animals = vec![
        Animal::Cat { lives: 9 },
        Animal::Fish("eel".to_owned(), vec![1.5; 100]),
    ];
    let back = client
        .load_balanced_view()
        .map_sync(&animals, |mut animal: Animal| {
            if let Animal::Cat { lives } = &mut animal {
                *lives -= 1;
            }
            animal
        });
    assert_eq!(
        back.unwrap(),
        [Animal::Cat { lives: 8 }, animals[1].clone()]
    );
}

#[test]
fn shared_values_go_once() {
    let (carrier, client) = cluster(2);
    let table: HashMap<String, u32> = [("a".to_owned(), 1), ("b".to_owned(), 2)].into();
    let items = ["a", "b", "c"].map(str::to_owned);
    let look_up = |table: &HashMap<String, u32>, item: String| table.get(&item).copied();
    let found = client
        .load_balanced_view()
        .map_with(&table, &items, look_up)
        .get()
        .unwrap();
    assert_eq!(found, [Some(1), Some(2), None]);
    let large = vec![1.0f64; 100_000];
    let sums = client.all().map_with(&large, 0..4u32, |large, x| {
        large.iter().sum::<f64>() + f64::from(x)
    });
    assert_eq!(
        sums.get().unwrap(),
        [100_000.0, 100_001.0, 100_002.0, 100_003.0]
    );
    // The last frame before this question is answered was the one that drops the value.
    client.queue_status(..).unwrap();
    assert_eq!(carrier.shared(), 0);
}

#[test]
fn reduced_on_engines_and_here() {
    let (_carrier, client) = cluster(3);
    let text = ["a b a", "b", "c a"].map(str::to_owned);
    let counts = client.load_balanced_view().map_reduce(
        &text,
        |line: String| {
            let mut counts = HashMap::new();
            line.split(' ')
                .for_each(|word| *counts.entry(word.to_owned()).or_insert(0u32) += 1);
            counts
        },
        |mut a, b| {
            b.into_iter()
                .for_each(|(word, count)| *a.entry(word).or_insert(0) += count);
            a
        },
    );
    assert_eq!(
        counts.get().unwrap(),
        [("a", 3), ("b", 2), ("c", 1)]
            .map(|(word, count)| (word.to_owned(), count))
            .into()
    );
    // The order matters to this one.
    let joined = client
        .all()
        .map_reduce(0..10u8, |x| x.to_string(), |a, b| a + &b);
    assert_eq!(joined.get().unwrap(), "0123456789");
    let none = client
        .all()
        .map_reduce(Vec::<u8>::new(), |x| x, |a, b| a + b);
    assert!(matches!(none.get(), Err(Error::Empty)));
}

#[test]
fn imap_takes_as_much_as_is_asked_for() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let (_carrier, client) = cluster(2);
    let endless = (0u64..).inspect(|_| {
        TAKEN.fetch_add(1, Ordering::SeqCst);
    });
    let squares = client
        .load_balanced_view()
        .imap(endless, |x| x * x)
        .max_outstanding(8);
    let first: Vec<u64> = squares.take(20).map(Result::unwrap).collect();
    assert_eq!(first, (0..20).map(|x| x * x).collect::<Vec<u64>>());
    assert!(TAKEN.load(Ordering::SeqCst) <= 28);
    let direct: Vec<u32> = client
        .all()
        .imap(0..10u32, |x| x + 1)
        .map(Result::unwrap)
        .collect();
    assert_eq!(direct, (1..11).collect::<Vec<u32>>());
    let unordered = client.all().imap(0..10u32, |x| x + 1).unordered();
    assert_eq!(unordered.map(Result::unwrap).sum::<u32>(), 55);

    // However many there may be, few are taken at once.
    let view = client.load_balanced_view();
    let mut many = view.imap(0..u64::MAX, |x| x + 1).max_outstanding(1);
    assert_eq!(many.next().unwrap().unwrap(), 1);
    let picky = view.clone().targets(1).imap(0..3u8, |x| x);
    assert_eq!(picky.map(Result::unwrap).collect::<Vec<u8>>(), [0, 1, 2]);
    assert!(
        client
            .load_balanced_view()
            .targets(7)
            .imap(0..3u8, |x| x)
            .next()
            .unwrap()
            .is_err()
    );
}

#[test]
fn failures_of_imap_have_their_inputs_numbers() {
    let (_carrier, client) = cluster(2);
    for size in [1, 3] {
        let view = client.load_balanced_view().chunk_size(size);
        let results = view.imap(0..10u32, |x| {
            assert!(x % 4 != 3, "bad {x}");
            x
        });
        let failed: Vec<_> = results
            .filter_map(Result::err)
            .map(|error| (error.tasks()[0].index, error.tasks()[0].evalue.clone()))
            .collect();
        let expected = [3, 7].map(|x| (Some(x), format!("bad {x}")));
        assert_eq!(failed, expected);
    }
}

#[test]
fn dependencies_are_on_tasks_of_the_same_client() {
    let (carrier, client) = cluster(1);
    let other = Client::from_stream(carrier.stream()).unwrap();
    let view = client.load_balanced_view();
    let done = view.apply(|x: u8| x, 1);
    let theirs = other.load_balanced_view().apply(|x: u8| x, 1);
    for after in [After::from(&theirs), After::all(&[&done]).and(&theirs)] {
        let error = view.clone().after(after).apply_sync(|()| (), ());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("another client"), "{error}");
    }
    let error = client.purge_results(&theirs).unwrap_err().to_string();
    assert!(error.contains("another client"), "{error}");

    // What was never submitted is no success.
    let never = view.clone().targets(7).apply(|x: u8| x, 1);
    let error = view.clone().follow(&never).apply_sync(|()| (), ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("was not submitted"), "{error}");
}

#[test]
fn unordered_results_come_when_they_are_there() {
    static GATE: Gate = Gate::new();
    let (_carrier, client) = cluster(2);
    let hold_first = |x: u32| {
        if x == 0 {
            GATE.pass();
        }
        x
    };
    let view = client.load_balanced_view().chunk_size(1);
    let mut seen = Vec::new();
    for result in view.imap(0..4u32, hold_first).unordered() {
        seen.push(result.unwrap());
        if seen.len() == 3 {
            GATE.open();
        }
    }
    assert_eq!((seen.pop(), seen.len()), (Some(0), 3));
    let mut numbered: Vec<(usize, u32)> = view
        .map([5u32, 6, 7], |x| x)
        .as_completed()
        .map(|(at, x)| (at, x.unwrap()))
        .collect();
    numbered.sort_unstable();
    assert_eq!(numbered, [(0, 5), (1, 6), (2, 7)]);
}

#[test]
fn variables_go_and_come() {
    let (carrier, client) = cluster(2);
    let view = client.all();
    view.push("greeting", &"hello".to_owned()).get().unwrap();
    assert_eq!(
        view.pull::<String>("greeting").get().unwrap(),
        ["hello", "hello"]
    );
    let data: Vec<f64> = (0..200_001).map(f64::from).collect();
    view.scatter("data", &data).get().unwrap();
    assert_eq!(
        client.direct_view(0).gather::<f64>("data").get().unwrap(),
        data[..100_000]
    );
    assert_eq!(view.gather::<f64>("data").get().unwrap(), data);
    let error = view.pull::<u8>("missing").get().unwrap_err();
    assert_eq!(error.tasks().len(), 2);
    assert!(error.to_string().contains("E0425: no `missing`"), "{error}");
    let error = view.push("not a name", &1).get().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("failed to push the variable `not a name`"),
        "{error}"
    );
    let executed = view.execute("1 + 1").get().unwrap();
    assert_eq!(
        executed[1].data,
        [("text/plain".to_owned(), "1 + 1".to_owned())]
    );
    assert_eq!(executed[0].text(), Some("1 + 1"));
    // The same snippet for all engines, and for each push of the same name and type.
    let codes: Vec<Work> = carrier
        .seen()
        .into_iter()
        .map(|submission| submission.work)
        .collect();
    let scattered = "let mut data: ::std::vec::Vec<f64> = ::chorus::__private::take(\"data\")?;";
    assert!(
        codes
            .iter()
            .any(|work| matches!(work, Work::Snippet { code, .. } if code == scattered)),
        "{codes:?}"
    );
}

#[test]
fn how_to_run_gets_to_the_carrier() {
    let (carrier, client) = cluster(2);
    let view = client.load_balanced_view();
    let first = view.map([1u8, 2, 3], |x| x);
    let second = view.apply(|x: u8| x, 4);
    second.wait();
    first.wait();
    let careful = view
        .clone()
        .targets(1)
        .retries(3)
        .timeout(Duration::from_millis(1500))
        .label("careful")
        .after(&second)
        .follow(After::any(&[&first]).and(&second).when(false, true));
    assert!(
        format!("{careful:?}").contains("3 retries, timeout 1.5s, after 1 tasks, follow 4 tasks"),
        "{careful:?}"
    );
    careful.apply(|()| (), ()).get().unwrap();
    let seen = carrier.seen().pop().unwrap();
    assert_eq!(seen.label.as_deref(), Some("careful"));
    let Route::Balanced {
        targets,
        retries,
        timeout,
        after,
        follow,
    } = seen.route
    else {
        panic!()
    };
    assert_eq!((targets, retries, timeout), (Some(vec![1]), 3, Some(1.5)));
    let (after, follow) = (after.unwrap(), follow.unwrap());
    let numbers = |spans: &[Span]| spans.iter().map(|span| span.count).collect::<Vec<_>>();
    assert_eq!(
        (
            numbers(&after.tasks),
            after.all,
            after.success,
            after.failure
        ),
        (vec![1], true, true, false)
    );
    assert_eq!(
        (
            numbers(&follow.tasks),
            follow.all,
            follow.success,
            follow.failure
        ),
        (vec![3, 1], false, false, true)
    );
}

#[test]
fn tasks_wait_for_those_before_them() {
    static GATE: Gate = Gate::new();
    let (_carrier, client) = cluster(2);
    let view = client.load_balanced_view();
    let first = view.apply(|()| GATE.pass(), ());
    let second = view.clone().after(&first).apply(|x: u8| x, 1);
    let third = view.apply(|x: u8| x, 2);
    assert_eq!(third.get_timeout(SOON).unwrap(), 2);
    assert!(!second.ready() && !first.ready());
    GATE.open();
    assert_eq!(second.get_timeout(SOON).unwrap(), 1);
    assert!(first.ready());
}

#[test]
fn functions_that_remember_where_they_run() {
    let (_carrier, client) = cluster(2);
    let remote = client.direct_view(0).remote(|x: u8| x + 1);
    assert_eq!(remote.call_sync(1).unwrap(), [2]);
    assert_eq!(remote.clone().call(5).get().unwrap(), [6]);
    let parallel = client.all().parallel(|x: u8| x * 2);
    assert_eq!(parallel.map_sync([1, 2, 3]).unwrap(), [2, 4, 6]);
    assert_eq!(
        format!("{parallel:?}"),
        "ParallelFunction(on DirectView(all: engines [0, 1]))"
    );
    let view = client.load_balanced_view().chunk_size(2);
    let remote = view.remote(|x: u8| x + 1);
    assert_eq!(remote.clone().call_sync(1).unwrap(), 2);
    assert_eq!(remote.call(5).get().unwrap(), 6);
    let parallel = view.parallel(|x: u8| x * 2).clone();
    assert_eq!(parallel.map_sync([1, 2, 3]).unwrap(), [2, 4, 6]);
    assert_eq!(parallel.map([1, 2, 3]).metadata().len(), 2, "chunks of two");
    assert_eq!(
        format!("{remote:?} {parallel:?}"),
        "RemoteFunction(on LoadBalancedView(engines [0, 1])) ParallelFunction(on LoadBalancedView(engines [0, 1]))"
    );
}

#[test]
fn engines_come_and_go() {
    let (carrier, client) = cluster(1);
    assert_eq!(client.wait_for_engines(1, SOON).unwrap(), [0]);
    let waited = client
        .wait_for_engines(2, Duration::from_millis(20))
        .unwrap_err();
    assert_eq!(
        waited.to_string(),
        "after 20ms there are 1 engines of the 2 that were waited for"
    );
    let view = client.all();
    carrier.start(4);
    assert_eq!(client.wait_for_engines(2, SOON).unwrap(), [0, 4]);
    assert_eq!(view.targets().unwrap(), [0, 4]);
    assert_eq!(client.queue_status(4).unwrap().engines.len(), 1);
    client.shutdown(0).unwrap();
    assert_eq!(client.ids().unwrap(), [4]);
    assert!(matches!(
        client.shutdown_cluster(),
        Err(Error::Refused { .. })
    ));
    client.purge().unwrap();
    client.purge_results(&view.apply(|()| (), ())).unwrap();
    assert_eq!(carrier.purged(), 2);
    client.shutdown(..).unwrap();
    let none = client.all().apply(|x: u8| x, 1).get().unwrap_err();
    assert!(
        none.to_string()
            .starts_with("there are no engines: start some"),
        "{none}"
    );
}

#[test]
fn large_values_go_beside_the_frames() {
    let (_carrier, client) = cluster(2);
    let large: Vec<u64> = (0..1 << 17).collect();
    let back = client
        .all()
        .apply_sync(|large: Vec<u64>| large, large.clone())
        .unwrap();
    assert_eq!(back, [large.clone(), large.clone()]);
    let doubled = client
        .load_balanced_view()
        .chunk_size(1 << 16)
        .map_sync(&large, |x| 2 * x)
        .unwrap();
    assert!(
        doubled
            .iter()
            .zip(&large)
            .all(|(doubled, x)| *doubled == 2 * x)
    );
    let own = format!("chorus-piece-{}-", std::process::id());
    drop(back);
    // Other tests of this process have theirs: all are taken in the end.
    let left = || {
        std::fs::read_dir("/dev/shm")
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with(&own)
            })
            .count()
    };
    assert!(left() <= 8, "{}", left());
}

#[test]
fn a_value_that_cannot_be_encoded_takes_its_call_with_it() {
    #[derive(Debug, Deserialize)]
    #[serde(crate = "chorus::serde")]
    struct Picky(u8);
    impl Serialize for Picky {
        fn serialize<S: chorus::serde::Serializer>(
            &self,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match self.0 {
                9 => Err(chorus::serde::ser::Error::custom("nine")),
                other => other.serialize(serializer),
            }
        }
    }
    let (carrier, client) = cluster(1);
    let items: Vec<Picky> = (0..10).map(Picky).collect();
    let view = client.load_balanced_view().chunk_size(1);
    let error = view.map(&items, |picky| picky.0).get().unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to encode a value that is to be sent: nine"
    );
    let error = view.apply(|x: u8| Picky(x), 9).get().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("could not be read or written: nine"),
        "{error}"
    );
    assert_eq!(view.apply_sync(|x: u8| Picky(x), 8).unwrap().0, 8);
    assert_eq!(carrier.seen().len(), 2);
}

#[test]
fn without_a_carrier() {
    // No test of this process sets the variable.
    let error = Client::connect_to("default", "no-such-cluster").unwrap_err();
    let says = if cfg!(feature = "client") {
        "chorus cluster start"
    } else {
        "CHORUS_CARRIER is not set"
    };
    assert!(error.to_string().contains(says), "{error}");
}
