//! Timings: how many loops, and the words for durations, exactly IPython's.
//!
//! Facts: IPython 9 `core/magics/execution.py`. The compiler's time is never part of a timing.

use std::fmt;
use std::time::Duration;

use crate::cell::Code;
use crate::options::TimeitArgs;

/// The compiler's time is told from here on, in seconds.
const WORTH_TELLING: f64 = 0.1;
/// A run that takes so long has loops enough.
const ENOUGH: Duration = Duration::from_millis(200);
const MOST_LOOPS: u64 = 1_000_000_000;

/// Runs something in a loop.
pub trait Timer {
    /// Why it can fail.
    type Error;

    /// Runs it `loops` times; gives the wall time of all together.
    fn time(&mut self, loops: u64) -> impl Future<Output = Result<Duration, Self::Error>> + Send;
}

/// What a timing found.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Loops a run.
    pub loops: u64,
    /// The seconds that each run took; at least one.
    pub runs: Vec<f64>,
    /// Significant digits shown.
    pub precision: u8,
}

impl Timing {
    /// The seconds a loop took, run by run.
    pub fn timings(&self) -> Vec<f64> {
        self.runs
            .iter()
            .map(|run| run / self.loops as f64)
            .collect()
    }

    /// The mean of [`Timing::timings`].
    pub fn average(&self) -> f64 {
        let timings = self.timings();
        timings.iter().sum::<f64>() / timings.len().max(1) as f64
    }

    /// Their standard deviation, of the population.
    pub fn deviation(&self) -> f64 {
        let timings = self.timings();
        let mean = self.average();
        let squares: f64 = timings.iter().map(|timing| (timing - mean).powi(2)).sum();
        (squares / timings.len().max(1) as f64).sqrt()
    }

    /// All that `%timeit` prints.
    pub fn report(&self, compile: Duration) -> String {
        let mut text = String::new();
        let worst = self.timings().into_iter().fold(0.0, f64::max);
        let best = self.timings().into_iter().fold(f64::INFINITY, f64::min);
        if worst > 4.0 * best && best > 0.0 && worst > 1e-6 {
            text.push_str(&format!(
                "The slowest run took {:.2} times longer than the fastest. This could mean that an intermediate result is being cached.\n",
                worst / best
            ));
        }
        text.push_str(&format!("{self}\n"));
        if compile.as_secs_f64() > WORTH_TELLING {
            text.push_str(&format!("Compiler time: {:.2} s\n", compile.as_secs_f64()));
        }
        text
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs.len();
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        write!(
            out,
            "{} ± {} per loop (mean ± std. dev. of {runs} run{}, {} loop{} each)",
            format_time(self.average(), self.precision),
            format_time(self.deviation(), self.precision),
            plural(runs as u64),
            thousands(self.loops),
            plural(self.loops),
        )
    }
}

/// Times with as many loops as asked for, or else the first power of ten that takes 0.2 s.
///
/// # Errors
/// As the timer's.
pub async fn measure<T: Timer>(timer: &mut T, options: &TimeitArgs) -> Result<Timing, T::Error> {
    let loops = match options.n {
        Some(loops) => loops,
        None => {
            let mut loops = 1;
            while timer.time(loops).await? < ENOUGH && loops < MOST_LOOPS {
                loops *= 10;
            }
            loops
        }
    };
    let mut runs = Vec::new();
    for _ in 0..options.r {
        runs.push(timer.time(loops).await?.as_secs_f64());
    }
    Ok(Timing {
        loops,
        runs,
        precision: options.p,
    })
}

/// Rust that does what [`measure`] does with `code`, in one snippet, so that it is compiled once: its value is a `Vec<u128>`, the loops and
/// then the nanoseconds of each run. `setup` is run before each run and is not timed.
pub fn snippet(code: &Code, setup: &str, options: &TimeitArgs) -> Code {
    let setup = match setup.trim() {
        "" => String::new(),
        setup if setup.ends_with([';', '}']) => format!(" {setup}"),
        setup => format!(" {setup};"),
    };
    let mut code = code.clone();
    code.before = format!(
        "{{ let mut __loops: u64 = {}; let mut __settled = {}; let mut __runs: Vec<u128> = Vec::new(); loop {{{setup} \
         let __start = ::std::time::Instant::now(); for _ in 0..__loops {{ ::std::hint::black_box({{",
        options.n.unwrap_or(1),
        options.n.is_some(),
    );
    // On a line of its own, because the code may end in a comment.
    code.after = format!(
        "\n}}); }} let __took = __start.elapsed().as_nanos(); if __settled {{ __runs.push(__took); if __runs.len() == {} {{ break; }} }} \
         else if __took < {} && __loops < {MOST_LOOPS} {{ __loops *= 10; }} else {{ __settled = true; }} }} \
         __runs.insert(0, __loops as u128); __runs }}",
        options.r,
        ENOUGH.as_nanos(),
    );
    code
}

/// Reads the text of [`snippet`]'s value.
pub fn read(text: &str, precision: u8) -> Option<Timing> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut numbers = inner
        .split(',')
        .map(|number| number.trim().parse::<u64>().ok());
    let loops = numbers.next()??;
    let runs: Option<Vec<f64>> = numbers
        .map(|number| number.map(|nanoseconds| Duration::from_nanos(nanoseconds).as_secs_f64()))
        .collect();
    let runs = runs.filter(|runs| !runs.is_empty() && loops > 0)?;
    Some(Timing {
        loops,
        runs,
        precision,
    })
}

/// How long something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Spent by the compiler before anything ran.
    pub compile: Duration,
    /// From the code's start to its end.
    pub wall: Duration,
    /// The CPU's time in user code and in the system, of the process that ran the code; if it is known.
    pub cpu: Option<(Duration, Duration)>,
}

impl Times {
    /// All that `%time` prints.
    pub fn report(&self) -> String {
        let show = |time: Duration| format_time(time.as_secs_f64(), 3);
        let mut text = String::new();
        if let Some((user, system)) = self.cpu {
            text.push_str(&format!(
                "CPU times: user {}, sys: {}, total: {}\n",
                show(user),
                show(system),
                show(user + system)
            ));
        }
        text.push_str(&format!("Wall time: {}\n", show(self.wall)));
        if self.compile.as_secs_f64() > WORTH_TELLING {
            text.push_str(&format!("Compiler : {}\n", show(self.compile)));
        }
        text
    }
}

/// A duration in seconds with so many significant digits: `1.23 ms`; from a minute on `1h 1min 1s`.
pub fn format_time(seconds: f64, precision: u8) -> String {
    if seconds >= 60.0 {
        let mut parts = Vec::new();
        let mut rest = seconds;
        for (unit, length) in [("d", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0)] {
            let count = (rest / length).trunc();
            if count > 0.0 {
                rest %= length;
                parts.push(format!("{count:.0}{unit}"));
            }
            if rest < 1.0 {
                break;
            }
        }
        return parts.join(" ");
    }
    let (scale, unit) = match seconds {
        _ if seconds <= 0.0 => (1e9, "ns"),
        _ => match seconds.log10().floor() {
            0.0.. => (1.0, "s"),
            -3.0.. => (1e3, "ms"),
            -6.0.. => (1e6, "μs"),
            _ => (1e9, "ns"),
        },
    };
    format!("{} {unit}", general(seconds * scale, precision))
}

/// C's `%.*g`.
fn general(value: f64, precision: u8) -> String {
    let digits = usize::from(precision.max(1));
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    match usize::try_from(digits as i32 - 1 - exponent) {
        Ok(decimals) if exponent >= -4 => trim(&format!("{value:.decimals$}")),
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
        }
    }
}

/// `1,000,000`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
