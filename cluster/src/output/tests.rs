//! Text and displays from bytes cut anywhere.

use super::*;
use proptest::prelude::*;

/// What comes out when `pieces` are written to stdout one after another, streams joined.
fn gather(pieces: &[&[u8]], ends_in_expression: bool) -> (Vec<Output>, Option<MimeBundle>) {
    let now = Instant::now();
    let mut buffer = OutputBuffer::default();
    for piece in pieces {
        buffer.bytes(now, Stream::Stdout, piece);
    }
    let result = buffer.finish(now, ends_in_expression);
    let mut joined: Vec<Output> = Vec::new();
    for output in buffer.take() {
        match (joined.last_mut(), output) {
            (Some(Output::Stream(last)), Output::Stream(next)) if last.name == next.name => {
                last.text.push_str(&next.text);
            }
            (_, output) => joined.push(output),
        }
    }
    (joined, result)
}

fn stdout(text: &str) -> Output {
    Output::Stream(StreamContent {
        name: StreamName::Stdout,
        text: text.into(),
    })
}

fn display(pairs: &[(&str, &str)]) -> Output {
    Output::Display(DisplayData {
        data: pairs
            .iter()
            .map(|(mime, text)| ((*mime).to_owned(), Value::from(*text)))
            .collect(),
        ..DisplayData::default()
    })
}

const HTML: &str = "EVCXR_BEGIN_CONTENT text/html\n<b>\nx</b>\nEVCXR_END_CONTENT\n";
const PLAIN: &str = "EVCXR_BEGIN_CONTENT text/plain\nx\nEVCXR_END_CONTENT\n";

#[test]
fn what_is_waited_for_is_told_once_and_ends_before_output() {
    let now = Instant::now();
    let mut buffer = OutputBuffer::default();
    let status = |activity: Option<&str>| {
        let activity = activity.map(str::to_owned);
        Output::CompileStatus(CompileStatus { activity })
    };
    buffer.compile_status(None);
    for activity in ["a", "a", "b"] {
        buffer.compile_status(Some(activity.to_owned()));
    }
    buffer.note(now, "text".to_owned());
    buffer.flush(now);
    buffer.compile_status(None);
    buffer.compile_status(Some("c".to_owned()));
    buffer.finish(now, false);
    let text = Output::Stream(StreamContent {
        name: StreamName::Stderr,
        text: "text".to_owned(),
    });
    let expected = [
        status(Some("a")),
        status(Some("b")),
        status(None),
        text,
        status(Some("c")),
        status(None),
    ];
    assert_eq!(buffer.take(), expected);
}

#[test]
fn blocks_that_differ_are_one_thing() {
    let (out, result) = gather(&[b"a\n", HTML.as_bytes(), PLAIN.as_bytes(), b"b"], false);
    assert_eq!(
        out,
        [
            stdout("a\n"),
            display(&[("text/html", "<b>\nx</b>"), ("text/plain", "x")]),
            stdout("b")
        ]
    );
    assert_eq!(result, None);
}

#[test]
fn blocks_alike_are_several_things_and_the_last_may_be_the_result() {
    let (out, result) = gather(&[PLAIN.as_bytes(), PLAIN.as_bytes()], true);
    assert_eq!(out, [display(&[("text/plain", "x")])]);
    assert_eq!(result, Some(text_bundle("x")));
}

#[test]
fn what_only_looks_like_a_block_is_text() {
    for text in [
        "EVCXR_BEGIN_CONTENT text/plain\nno end",
        "say EVCXR_BEGIN_CONTENT text/plain\nx\nEVCXR_END_CONTENT\n",
        "EVCXR_BEGIN_CON",
        "EVCXR_EXECUTION_COMPLETE\nEVCXR_PANIC_NOTIFICATION\nEVCXR_END_CONTENT\n",
    ] {
        let (out, result) = gather(&[text.as_bytes()], true);
        assert_eq!(out, [stdout(text)]);
        assert_eq!(result, None);
    }
}

#[test]
fn a_display_has_a_name_and_can_be_updated() {
    let block = |update: bool| {
        format!(
            "EVCXR_BEGIN_CONTENT {DISPLAY}\n{{\"display_id\": \"p\", \"update\": {update}}}\nEVCXR_END_CONTENT\n{PLAIN}"
        )
    };
    let (out, _) = gather(&[block(false).as_bytes(), block(true).as_bytes()], true);
    let [Output::Display(first), Output::Update(second)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(first.transient.display_id.as_deref(), Some("p"));
    assert_eq!(second.transient.display_id.as_deref(), Some("p"));
    assert_eq!(second.data, text_bundle("x"));
}

#[test]
fn clearing() {
    let block = format!("EVCXR_BEGIN_CONTENT {CLEAR}\n{{\"wait\": true}}\nEVCXR_END_CONTENT\n");
    let (out, _) = gather(&[b"a", b"\n", block.as_bytes(), b"b"], false);
    assert_eq!(
        out,
        [
            stdout("a\n"),
            Output::Clear(ClearOutput { wait: true }),
            stdout("b")
        ]
    );
}

#[test]
fn what_waits_is_due_soon() {
    let now = Instant::now();
    let mut buffer = OutputBuffer::default();
    assert_eq!(buffer.deadline(), None);
    buffer.bytes(now, Stream::Stdout, b"How");
    let first = buffer.deadline().unwrap();
    assert!(first <= now + FIRST);
    buffer.bytes(now, Stream::Stderr, b"!");
    assert_eq!(buffer.deadline(), Some(first));
    buffer.flush(first);
    assert_eq!(buffer.take().len(), 2);
    assert_eq!(buffer.deadline(), None);
    let later = first + FIRST;
    buffer.bytes(later, Stream::Stdout, b"more");
    let second = buffer.deadline().unwrap();
    assert!(second > first && second <= later + GATHER);
    buffer.bytes(later, Stream::Stdout, b"\n");
    buffer.bytes(later, Stream::Stdout, PLAIN.as_bytes());
    assert!(buffer.deadline().is_some());
    buffer.flush(second);
    assert!(matches!(buffer.take()[..], [.., Output::Display(_)]));
    assert_eq!(buffer.deadline(), None);
}

proptest! {
    /// Where the bytes were cut makes no difference.
    #[test]
    fn cuts_do_not_matter(
        parts in proptest::collection::vec(prop_oneof![
            Just(HTML.to_owned()), Just(PLAIN.to_owned()), Just("é\n".to_owned()), Just("EVCXR_BEGIN_CONTENT ".to_owned()),
            Just("EVCXR_END_CONTENT\n".to_owned()), "[a-zé\n]{0,5}",
        ], 0..8),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        expression: bool,
    ) {
        let text = parts.concat();
        let bytes = text.as_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(gather(&pieces, expression), gather(&[bytes], expression));
    }

    /// No byte is lost: all text comes out, in order.
    #[test]
    fn text_is_whole(text in "[a-zE_\n]{0,40}") {
        let (out, _) = gather(&[text.as_bytes()], false);
        let all: String = out.iter().map(|output| match output {
            Output::Stream(stream) => stream.text.clone(),
            _ => String::new(),
        }).collect();
        prop_assert_eq!(all, text);
    }
}
