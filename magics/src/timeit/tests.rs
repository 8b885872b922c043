//! Expectations were printed by IPython 9.18 (`_format_time`, `TimeitResult`).

use super::*;

#[test]
fn durations_as_ipython_formats_them() {
    for (seconds, three, one, six) in [
        (0.0, "0 ns", "0 ns", "0 ns"),
        (1e-12, "0.001 ns", "0.001 ns", "0.001 ns"),
        (4.5e-10, "0.45 ns", "0.5 ns", "0.45 ns"),
        (9.996e-10, "1 ns", "1 ns", "0.9996 ns"),
        (1e-09, "1 ns", "1 ns", "1 ns"),
        (1.5e-09, "1.5 ns", "2 ns", "1.5 ns"),
        (1.234e-08, "12.3 ns", "1e+01 ns", "12.34 ns"),
        (1.234e-07, "123 ns", "1e+02 ns", "123.4 ns"),
        (9.994e-07, "999 ns", "1e+03 ns", "999.4 ns"),
        (9.996e-07, "1e+03 ns", "1e+03 ns", "999.6 ns"),
        (1e-06, "1 μs", "1 μs", "1 μs"),
        (1.234e-06, "1.23 μs", "1 μs", "1.234 μs"),
        (4.53e-06, "4.53 μs", "5 μs", "4.53 μs"),
        (9.995e-05, "100 μs", "1e+02 μs", "99.95 μs"),
        (0.000303, "303 μs", "3e+02 μs", "303 μs"),
        (0.001, "1 ms", "1 ms", "1 ms"),
        (0.001234, "1.23 ms", "1 ms", "1.234 ms"),
        (0.01234, "12.3 ms", "1e+01 ms", "12.34 ms"),
        (0.2, "200 ms", "2e+02 ms", "200 ms"),
        (0.9994, "999 ms", "1e+03 ms", "999.4 ms"),
        (0.9996, "1e+03 ms", "1e+03 ms", "999.6 ms"),
        (1.0, "1 s", "1 s", "1 s"),
        (1.25, "1.25 s", "1 s", "1.25 s"),
        (9.995, "9.99 s", "1e+01 s", "9.995 s"),
        (59.94, "59.9 s", "6e+01 s", "59.94 s"),
        (59.96, "60 s", "6e+01 s", "59.96 s"),
        (59.999, "60 s", "6e+01 s", "59.999 s"),
        (60.0, "1min", "1min", "1min"),
        (61.5, "1min 1s", "1min 1s", "1min 1s"),
        (119.99, "1min 59s", "1min 59s", "1min 59s"),
        (3600.0, "1h", "1h", "1h"),
        (3661.0, "1h 1min 1s", "1h 1min 1s", "1h 1min 1s"),
        (3601.2, "1h 1s", "1h 1s", "1h 1s"),
        (86400.0, "1d", "1d", "1d"),
        (90061.0, "1d 1h 1min 1s", "1d 1h 1min 1s", "1d 1h 1min 1s"),
        (172800.5, "2d", "2d", "2d"),
    ] {
        assert_eq!(format_time(seconds, 3), three, "{seconds}");
        assert_eq!(format_time(seconds, 1), one, "{seconds}");
        assert_eq!(format_time(seconds, 6), six, "{seconds}");
    }
}

#[test]
fn timings_as_ipython_formats_them() {
    for (loops, runs, expected) in [
        (
            1000,
            &[1.23, 1.3, 1.2, 1.25, 1.22, 1.21, 1.19][..],
            "1.23 ms ± 34.4 μs per loop (mean ± std. dev. of 7 runs, 1,000 loops each)",
        ),
        (
            1,
            &[1.0],
            "1 s ± 0 ns per loop (mean ± std. dev. of 1 run, 1 loop each)",
        ),
        (
            1,
            &[1.0, 2.0, 3.0],
            "2 s ± 816 ms per loop (mean ± std. dev. of 3 runs, 1 loop each)",
        ),
        (
            100_000_000,
            &[0.826, 0.83, 0.81, 0.82, 0.83, 0.84, 0.82],
            "8.25 ns ± 0.0887 ns per loop (mean ± std. dev. of 7 runs, 100,000,000 loops each)",
        ),
        (
            2,
            &[140.0, 160.0],
            "1min 15s ± 5 s per loop (mean ± std. dev. of 2 runs, 2 loops each)",
        ),
        (
            10,
            &[1.0, 0.1],
            "55 ms ± 45 ms per loop (mean ± std. dev. of 2 runs, 10 loops each)",
        ),
    ] {
        let timing = Timing {
            loops,
            runs: runs.to_vec(),
            precision: 3,
        };
        assert_eq!(timing.to_string(), expected);
    }
}

#[test]
fn reports() {
    let timing = read("[10, 1000000000, 100000000]", 3).unwrap();
    assert_eq!(
        timing.report(Duration::from_millis(254)),
        "The slowest run took 10.00 times longer than the fastest. This could mean that an intermediate result is being cached.\n\
         55 ms ± 45 ms per loop (mean ± std. dev. of 2 runs, 10 loops each)\n\
         Compiler time: 0.25 s\n"
    );
    let times = Times {
        compile: Duration::from_millis(240),
        wall: Duration::from_millis(200),
        cpu: Some((Duration::from_micros(1460), Duration::from_micros(303))),
    };
    assert_eq!(
        times.report(),
        "CPU times: user 1.46 ms, sys: 303 μs, total: 1.76 ms\nWall time: 200 ms\nCompiler : 240 ms\n"
    );
    let unknown = Times {
        wall: Duration::from_nanos(4530),
        ..Times::default()
    };
    assert_eq!(unknown.report(), "Wall time: 4.53 μs\n");
    for text in ["", "[]", "[10]", "[0, 1]", "[1, x]", "()"] {
        assert_eq!(read(text, 3), None, "{text}");
    }
}

/// Takes the same time for each loop.
struct Steady {
    one: Duration,
    asked: Vec<u64>,
}

impl Timer for Steady {
    type Error = ();

    async fn time(&mut self, loops: u64) -> Result<Duration, ()> {
        self.asked.push(loops);
        Ok(self.one * u32::try_from(loops).unwrap_or(u32::MAX))
    }
}

#[tokio::test]
async fn loops_grow_until_a_run_takes_long_enough() {
    let options = |n, r| TimeitArgs {
        n,
        r,
        p: 3,
        q: false,
        o: false,
        v: None,
    };
    for (one, n, asked) in [
        (Duration::from_secs(1), None, &[1, 1, 1][..]),
        (Duration::from_millis(2), None, &[1, 10, 100, 100, 100]),
        (Duration::from_millis(2), Some(5), &[5, 5]),
        (
            Duration::ZERO,
            None,
            &[
                1,
                10,
                100,
                1_000,
                10_000,
                100_000,
                1_000_000,
                10_000_000,
                100_000_000,
                1_000_000_000,
                1_000_000_000,
                1_000_000_000,
            ],
        ),
    ] {
        let mut timer = Steady {
            one,
            asked: Vec::new(),
        };
        let timing = measure(&mut timer, &options(n, 2)).await.unwrap();
        assert_eq!(timer.asked, asked);
        assert_eq!(timing.runs.len(), 2);
    }
}

/// The snippet is real Rust: rustc compiles it, and what it prints can be read.
#[test]
fn the_snippet_times() {
    let folder = std::env::temp_dir().join(format!("magics-timeit-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let options = TimeitArgs {
        n: None,
        r: 2,
        p: 3,
        q: false,
        o: false,
        v: None,
    };
    let code = Code {
        text: "v.push(1); std::thread::sleep(d); v.len() // all".to_owned(),
        line: 2,
        ..Code::default()
    };
    let setup = "let mut v = Vec::new(); let d = std::time::Duration::from_millis(30)";
    let snippet = snippet(&code, setup, &options).source();
    let source = format!("fn main() {{ println!(\"{{:?}}\", {{{snippet}\n}}); }}");
    let file = folder.join("main.rs");
    std::fs::write(&file, source).unwrap();
    let built = std::process::Command::new("rustc")
        .args(["--edition", "2024", "-Dwarnings", "-o"])
        .arg(folder.join("main"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let ran = std::process::Command::new(folder.join("main"))
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let timing = read(&String::from_utf8_lossy(&ran.stdout), 3).unwrap();
    // On a busy machine a loop takes longer, and fewer are enough.
    assert!(
        matches!(timing.loops, 1 | 10) && timing.runs.len() == 2,
        "{timing}"
    );
    assert!(timing.average() >= 0.03, "{timing}");
}
