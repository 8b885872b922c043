//! Standard input asks the owner.

use runtime::{Event, Outcome, Runtime};

use crate::support::{Namespace, Ran, cell};

/// Runs a cell, answering its questions in turn; gives what it asked.
async fn ask(body: &str, answers: &[Option<&str>]) -> (Ran, Vec<(String, bool)>) {
    let mut namespace = Namespace::start().await;
    let run = namespace.send(cell(body));
    let (mut asked, mut answers) = (Vec::new(), answers.iter());
    let answer = |runtime: &Runtime, event| match event {
        Event::Input { prompt, password } => {
            asked.push((prompt, password));
            let answer = answers.next().expect("no more questions");
            runtime.input(answer.map(str::to_owned));
        }
        other => panic!("{other:?}"),
    };
    let ran = namespace.finish_with(run, answer).await;
    assert_eq!(ran.outcome, Outcome::Completed, "{ran:?}");
    (ran, asked)
}

const EVCXR_INPUT: &str = r#"fn get(command: &str, prompt: &str) -> String {
        println!("{command}:{prompt}");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        line.trim().to_owned()
    }"#;

#[tokio::test]
async fn evcxr_input_has_a_prompt() {
    let (ran, asked) = ask(
        &format!(
            r#"{EVCXR_INPUT}
               print!("a\n");
               let name = get("EVCXR_INPUT_REQUEST", "Name?");
               let word = get("EVCXR_INPUT_REQUEST_PASSWORD", "Word: ");
               println!("{{name}} {{word}}");"#
        ),
        &[Some("Ada"), Some("secret")],
    )
    .await;
    assert_eq!(
        asked,
        [("Name?".to_owned(), false), ("Word: ".to_owned(), true)]
    );
    assert_eq!(ran.stdout, "a\nAda secret\n");
}

#[tokio::test]
async fn plain_stdin_asks_without_one() {
    let long = "y".repeat(300_000);
    let (ran, asked) = ask(
        r#"use std::io::Read;
           print!("Your name: ");
           let mut line = String::new();
           std::io::stdin().read_line(&mut line).unwrap();
           print!("[{line}]");
           let mut rest = String::new();
           std::io::stdin().read_to_string(&mut rest).unwrap();
           print!("[{}]", rest.len());"#,
        &[Some("Ünal"), Some("two\nlines"), Some(&long), None],
    )
    .await;
    assert_eq!(asked, vec![(String::new(), false); 4]);
    assert_eq!(ran.stdout, "Your name: [Ünal\n][300011]");
}

#[tokio::test]
async fn what_reads_by_other_means_meets_the_end() {
    let (ran, asked) = ask(
        r#"unsafe extern "C" { fn getchar() -> i32; }
           println!("{}", unsafe { getchar() });
           println!("{}", std::process::Command::new("cat").status().unwrap());"#,
        &[],
    )
    .await;
    assert!(asked.is_empty());
    assert_eq!(ran.stdout, "-1\nexit status: 0\n");
}

#[tokio::test]
async fn an_interrupted_question_is_forgotten() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let reads = r#"let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        print!("[{}]", line.trim_end());"#;
    let run = namespace.send(cell(reads));
    loop {
        if matches!(namespace.event().await, Event::Input { .. }) {
            break;
        }
    }
    namespace.runtime.interrupt(run);
    let ran = namespace.finish(run).await;
    assert!(
        matches!(ran.outcome, Outcome::Interrupted { .. }),
        "{ran:?}"
    );
    namespace.runtime.input(Some("late".to_owned()));
    let run = namespace.send(cell(reads));
    let ran = namespace
        .finish_with(run, |runtime, _| runtime.input(Some("new".to_owned())))
        .await;
    assert_eq!(ran.stdout, "[new]");
    namespace.assert_filled().await;
}
