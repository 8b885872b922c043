//! Options and what is said of wrong ones.

use super::*;

#[test]
fn px_options() {
    let all: PxArgs = parse(
        "%%px",
        "-a --no-stream -t [0, 1] --verbose --progress-after -1 --signal-on-interrupt kill -e -o counts --local",
    )
    .unwrap();
    assert_eq!(all.exec.blocks(), Some(false));
    assert_eq!(all.exec.streams(), Some(false));
    assert_eq!(all.exec.speaks(), Some(true));
    assert_eq!(all.exec.targets.as_deref(), Some("[0, 1]"));
    assert_eq!(all.exec.progress_after, Some(-1.0));
    assert_eq!(all.exec.signal_on_interrupt, Some(Signal(9)));
    assert_eq!(all.output.grouping(), Some(Grouping::Engine));
    assert_eq!(all.output.out.as_deref(), Some("counts"));
    assert!(all.local);
    let none: PxArgs = parse("%%px", "").unwrap();
    assert_eq!(none, PxArgs::default());
    assert_eq!(none.exec.blocks(), None);
    // The last one wins, as with argparse.
    let twice: PxArgs = parse(
        "%%px",
        "-a -b --stream --no-stream -r --group-outputs=type --no-verbose -t -1",
    )
    .unwrap();
    assert_eq!(twice.exec.blocks(), Some(true));
    assert_eq!(twice.exec.streams(), Some(false));
    assert_eq!(twice.exec.speaks(), Some(false));
    assert_eq!(twice.exec.targets.as_deref(), Some("-1"));
    assert_eq!(twice.output.grouping(), Some(Grouping::Type));
}

#[test]
fn code_after_options() {
    for (line, code) in [
        ("1 + 1", "1 + 1"),
        ("-t 0 let y = \"a  b\";", "let y = \"a  b\";"),
        ("--targets=0 -a f()", "f()"),
        ("-at 0 f()", "f()"),
        ("-t0 f()", "f()"),
        ("-1 + 2", "-1 + 2"),
        ("-(a)", "-(a)"),
        ("-t 0 -- -a", "-a"),
        ("-- --b", "--b"),
        ("-t [0, 1]  'c'", "'c'"),
        ("-t 0", ""),
    ] {
        let (_, at) = parse_before_code::<PxArgs>("%px", line).unwrap();
        assert_eq!(&line[at..], code, "{line:?}");
    }
    let (options, at) =
        parse_before_code::<TimeitArgs>("%timeit", "-n10 -r 3 -qo -p 4 f()").unwrap();
    assert_eq!((options.n, options.r, options.p), (Some(10), 3, 4));
    assert!(options.q && options.o);
    assert_eq!(at, 19);
}

#[test]
fn what_is_wrong_is_said() {
    let px = |line| parse::<PxArgs>("%%px", line).unwrap_err().to_string();
    for (line, said) in [
        (
            "--taget 0",
            "%%px: there is no option `--taget`. Did you mean `--targets`?",
        ),
        (
            "-z",
            "%%px: there is no option `-z`. It has -b, --block, -a, --noblock, --stream, --no-stream, -t, --targets, --verbose, --no-verbose, --progress-after, --signal-on-interrupt, -r, -e, --group-outputs, -o, --out, --local",
        ),
        ("0", "%%px: `0` is one word too many"),
        (
            "-t",
            "%%px: a value is required for '--targets <ENGINES>' but none was supplied",
        ),
        (
            "--group-outputs machine",
            "%%px: invalid value 'machine' for '--group-outputs <HOW>'; [possible values: type, engine, order]",
        ),
        (
            "--progress-after soon",
            "%%px: invalid value 'soon' for '--progress-after <SECONDS>': invalid float literal",
        ),
        (
            "--signal-on-interrupt SIGFOO",
            "%%px: invalid value 'SIGFOO' for '--signal-on-interrupt <SIGNAL>': a number from 0 to 64, or one of SIGINT, SIGTERM, SIGKILL, SIGHUP, SIGQUIT, SIGABRT",
        ),
        (
            "-o 9a",
            "%%px: invalid value '9a' for '--out <NAME>': the name of a variable is meant",
        ),
        (
            "-o let",
            "%%px: invalid value 'let' for '--out <NAME>': the name of a variable is meant",
        ),
    ] {
        assert_eq!(px(line), said, "{line:?}");
    }
    let error = parse_before_code::<PxArgs>("%px", "-x + 1").unwrap_err();
    assert!(
        error.message.starts_with("there is no option `-x`"),
        "{error}"
    );
    let error = parse::<ClusterArgs>("%cluster", "strat -n 2").unwrap_err();
    assert_eq!(
        error.to_string(),
        "%cluster: unrecognized subcommand 'strat'; tip: some similar subcommands exist: 'status', 'restart', 'start'"
    );
    let error = parse::<ClusterArgs>("%cluster", "start -n 0").unwrap_err();
    assert_eq!(
        error.to_string(),
        "%cluster: invalid value '0' for '-n <N>': 0 is not in 1..=4096"
    );
    let error = parse::<NoArgs>("%lsmagic", "--all").unwrap_err();
    assert_eq!(
        error.to_string(),
        "%lsmagic: there is no option `--all`: it has none"
    );
    let error = parse::<CheckpointArgs>("%checkpoint", "maybe").unwrap_err();
    assert_eq!(
        error.to_string(),
        "%checkpoint: invalid value 'maybe' for '[STATE]'; [possible values: on, off, status]"
    );
}

#[test]
fn cluster_commands() {
    for (line, expected) in [
        ("", None),
        ("start", Some(ClusterCommand::Start { n: None })),
        ("start -n 4", Some(ClusterCommand::Start { n: Some(4) })),
        ("scale 8", Some(ClusterCommand::Scale { n: 8 })),
        ("stop", Some(ClusterCommand::Stop)),
    ] {
        let found: ClusterArgs = parse("%cluster", line).unwrap();
        assert_eq!(found.command, expected, "{line}");
    }
}

#[test]
fn signals() {
    for (text, number, name) in [
        ("SIGINT", 2, "SIGINT"),
        ("2", 2, "SIGINT"),
        ("int", 2, "SIGINT"),
        ("0", 0, "0"),
        ("9", 9, "SIGKILL"),
    ] {
        let signal: Signal = text.parse().unwrap();
        assert_eq!((signal.0, signal.to_string().as_str()), (number, name));
    }
    assert!("65".parse::<Signal>().is_err());
}
