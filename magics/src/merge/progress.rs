//! The progress line of a long `%px`, in the shape of the bar that ipyparallel shows.

use crate::event::EngineId;
use crate::targets::ranges;

const WIDTH: usize = 10;
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// `%px:  50%|█████     | 1/2 engines [00:02]`, and the engines that failed so far.
pub fn progress_line(ended: usize, total: usize, seconds: u64, failed: &[EngineId]) -> String {
    let total = total.max(1);
    let ended = ended.min(total);
    let percent = ended * 100 / total;
    let eighths = ended * WIDTH * 8 / total;
    let mut bar = "█".repeat(eighths / 8);
    if eighths / 8 < WIDTH {
        bar.extend(EIGHTHS.get(eighths % 8));
        bar.extend(std::iter::repeat_n(' ', WIDTH - eighths / 8 - 1));
    }
    let time = clock(seconds);
    let failed = match failed {
        [] => String::new(),
        failed => format!(", failed: {}", ranges(failed)),
    };
    format!("%px: {percent:>3}%|{bar}| {ended}/{total} engines [{time}]{failed}")
}

/// `%px: starting the compiler [00:02]`.
pub fn compile_line(activity: &str, seconds: u64) -> String {
    format!("%px: {activity} [{}]", clock(seconds))
}

/// Minutes and seconds, and hours if there are any.
fn clock(seconds: u64) -> String {
    let (minutes, second) = (seconds / 60, seconds % 60);
    match minutes / 60 {
        0 => format!("{minutes:02}:{second:02}"),
        hours => format!("{hours}:{:02}:{second:02}", minutes % 60),
    }
}
