//! What goes wrong, and how it is told.

use super::carrier::{FIRST, failure};
use super::{Gate, SOON, cluster};
use chorus::wire::{Done, Down, FailureKind, News, Outcome, Piece};
use chorus::{Client, Error};

#[test]
fn a_panic_costs_its_own_item_and_says_where() {
    let (_carrier, client) = cluster(2);
    let result = client
        .load_balanced_view()
        .chunk_size(3)
        .map(0..8i32, |x| 100 / (x - 4));
    let all = result.results().unwrap();
    assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 7);
    assert_eq!(*all[5].as_ref().unwrap(), 100);
    let error = result.get().unwrap_err();
    let [task] = error.tasks() else {
        panic!("{error}")
    };
    assert_eq!(
        (task.kind, task.index, task.evalue.as_str()),
        (FailureKind::Panic, Some(4), "attempt to divide by zero")
    );
    let location = task.location.clone().unwrap();
    assert_eq!(
        (location.file.as_str(), location.text.as_deref()),
        ("In[1]", Some(" the line "))
    );
    let text = format!("{error:?}");
    assert!(text.starts_with("[item 4, engine "), "{text}");
    assert!(
        text.ends_with(&format!(
            "panicked: attempt to divide by zero\n    at In[1], line {}: the line",
            location.line
        )),
        "{text}"
    );
    let iterated: Vec<bool> = result.iter().map(|result| result.is_ok()).collect();
    assert_eq!(iterated, [true, true, true, true, false, true, true, true]);
}

#[test]
fn many_panics_are_one_error() {
    let (_carrier, client) = cluster(3);
    let error = client
        .all()
        .map_sync(0..1000u32, |x| assert!(x % 2 == 0, "odd"))
        .unwrap_err();
    assert_eq!(error.tasks().len(), 500);
    let text = error.to_string();
    assert!(
        text.starts_with("500 of 1000 failed") && text.contains("and 499 more like it"),
        "{text}"
    );
    let error = client.all().apply_sync(|x: u8| 1 / x, 0).unwrap_err();
    assert!(
        matches!(&error, Error::Composite(all) if all.failed.len() == 3),
        "{error}"
    );
    let error = client
        .load_balanced_view()
        .apply_sync(|x: u8| 1 / x, 0)
        .unwrap_err();
    assert!(
        matches!(&error, Error::Task(task) if task.ename == "panic" && task.engine.is_some()),
        "{error}"
    );
    let reduced = client
        .all()
        .map_reduce([1u8, 0, 2], |x| 4 / x, |a, b| a + b);
    assert_eq!(reduced.get().unwrap_err().tasks()[0].index, Some(1));
    let reduced = client
        .load_balanced_view()
        .map_reduce([0u8, 1, 0, 2], |x| 4 / x, |a, b| a + b);
    let error = reduced.get().unwrap_err().to_string();
    assert!(error.starts_with("2 of 4 failed\n"), "{error}");
    let pulled = client.all().pull::<u8>("nowhere").get();
    let error = pulled.unwrap_err().to_string();
    assert!(error.starts_with("3 of 3 failed\n"), "{error}");
    let scattered = client.all().scatter("bad name", &[1u8; 100]).get();
    assert!(scattered.is_err());
}

#[test]
fn an_engine_that_dies_takes_only_its_own() {
    static GATE: Gate = Gate::new();
    let (carrier, client) = cluster(2);
    let result = client.all().map([0u8, 1], |x| {
        if x == 1 {
            GATE.pass();
        }
        x
    });
    assert_eq!(result.iter().next().unwrap().unwrap(), 0);
    carrier.kill(1);
    let error = result.get_timeout(SOON).unwrap_err();
    assert_eq!(
        error.to_string(),
        "[item 1, engine 1] EngineError: engine 1 died"
    );
    assert_eq!(*result.results().unwrap()[0].as_ref().unwrap(), 0);
    GATE.open();
}

#[test]
fn a_lost_carrier_ends_all_waiting() {
    static GATE: Gate = Gate::new();
    let (carrier, client) = cluster(1);
    let view = client.load_balanced_view().chunk_size(1);
    let result = view.map(0..2u8, |x| {
        if x == 1 {
            GATE.pass();
        }
        x
    });
    assert_eq!(result.iter().next().unwrap().unwrap(), 0);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| result.get())).collect();
        carrier.hang_up();
        for thread in waiting {
            let error = thread.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Lost { .. }), "{error}");
        }
    });
    // What came before stays.
    assert_eq!(*result.results().unwrap()[0].as_ref().unwrap(), 0);
    let error = view.map(0..2u8, |x| x).get().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("lost the connection to the cluster: "),
        "{error}"
    );
    assert!(client.ids().is_err() && client.queue_status(..).is_err());
    assert!(
        format!("{client:?}").starts_with("Client(test, lost: "),
        "{client:?}"
    );
    GATE.open();
}

#[test]
fn a_cluster_that_is_gone_is_told() {
    static GATE: Gate = Gate::new();
    let (carrier, client) = cluster(1);
    let result = client.load_balanced_view().apply(|()| GATE.pass(), ());
    carrier.send(&Down::Gone {
        reason: "the controller was stopped".to_owned(),
    });
    let error = result.get_timeout(SOON).unwrap_err();
    assert!(
        error.to_string().contains("the controller was stopped"),
        "{error}"
    );
    GATE.open();
}

#[test]
fn a_refusal_is_told() {
    let carrier = super::Carrier::new(0);
    let path = std::env::temp_dir().join(format!("chorus-test-{}", std::process::id()));
    carrier.listen(&path);
    // SAFETY: a variable of the child process only.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["failures::refused", "--exact", "--ignored", "--nocapture"])
        .env("CHORUS_CARRIER", &path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("failed to connect to a cluster: there is no profile `none`"),
        "{text}"
    );
    let hellos = carrier.hellos();
    assert_eq!(
        (
            hellos[0].profile.as_deref(),
            hellos[0].cluster_id.as_deref()
        ),
        (Some("none"), None)
    );
}

#[test]
#[ignore = "run by the test above, with a carrier in the environment"]
fn refused() {
    println!("{:?}", Client::connect_to("none", "").unwrap_err());
}

#[test]
fn strange_news_harm_nobody() {
    let (carrier, client) = cluster(1);
    let done = |id, outcome| {
        let done = Done {
            id,
            engine: Some(0),
            submitted: 0.0,
            started: 0.0,
            completed: 0.0,
            outcome,
        };
        Down::Tasks(vec![
            News::Started {
                id,
                engine: 9,
                at: 1.0,
            },
            News::Done(done),
        ])
    };
    for id in [0, FIRST, FIRST + 1, u64::MAX] {
        carrier.send(&done(id, Outcome::Value(Piece::Inline(vec![1, 2, 3]))));
    }
    // They are read before there are tasks of these numbers.
    assert_eq!(client.ids().unwrap(), [0]);
    let result = client.load_balanced_view().apply(|x: u8| x, 5);
    assert_eq!(result.get_timeout(SOON).unwrap(), 5);
    // A second end doesn't change the first.
    carrier.send(&done(
        FIRST,
        Outcome::Failed(failure(FailureKind::Error, "E", "late")),
    ));
    client.queue_status(..).unwrap();
    assert_eq!(result.get().unwrap(), 5);
    // Bytes that are no result, and a file that is not there.
    let gone = Piece::File {
        path: "/dev/shm/chorus-piece-none".into(),
        length: 9,
    };
    let broken = Piece::Inline(vec![1, 2, 3]);
    let shared = Piece::Shared { id: 1 };
    static GATE: Gate = Gate::new();
    for piece in [broken, gone, shared] {
        let view = client.load_balanced_view();
        let result = view.apply(|()| GATE.pass(), ());
        // Its answer comes after the carrier has read the task.
        client.queue_status(..).unwrap();
        let id = carrier.seen().pop().unwrap().tasks[0].id;
        carrier.send(&done(id, Outcome::Value(piece)));
        let error = result.get_timeout(SOON).unwrap_err().to_string();
        assert!(error.contains("read"), "{error}");
    }
    GATE.open();
}
