//! A picture of what ran where and when: one lane an engine, one bar a task. Pure: times in, SVG out.
//!
//! Text and lines have the colour of the text around the picture, and the bars are of medium brightness, so that it can be read on
//! light and dark grounds.

use std::fmt::Write;

/// One task on an engine, times in seconds on any clock.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) engine: u32,
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) failed: bool,
    /// What it was: shown when the mouse rests on it.
    pub(crate) title: String,
}

const WIDTH: f64 = 640.0;
const LEFT: f64 = 72.0;
const LANE: f64 = 22.0;
const BAR: f64 = 16.0;
const AXIS: f64 = 24.0;
/// Lanes that are drawn; a picture with more is no picture.
const LANES: usize = 64;

/// Neighbouring bars differ.
const COLOURS: [&str; 2] = ["#4c8fd6", "#7a74d1"];
const FAILED: &str = "#e0524f";

/// The picture of these bars from `from` to `to`, in seconds on their clock. Bars that would be narrower than half a pixel are drawn as one.
pub(crate) fn svg(bars: &[Bar], from: f64, to: f64) -> String {
    let mut engines: Vec<u32> = bars.iter().map(|bar| bar.engine).collect();
    engines.sort_unstable();
    engines.dedup();
    let left_out = engines.len().saturating_sub(LANES);
    engines.truncate(LANES);

    let span = (to - from).max(1e-9);
    let scale = WIDTH / span;
    let bottom = LANE * engines.len() as f64;
    let height = bottom + AXIS + if left_out > 0 { 16.0 } else { 0.0 };
    let width = LEFT + WIDTH + 16.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         style=\"max-width:100%\" font-family=\"sans-serif\" font-size=\"11\" fill=\"currentColor\" role=\"img\" \
         aria-label=\"What ran on which engine\">"
    );
    for (lane, engine) in engines.iter().enumerate() {
        let top = LANE * lane as f64;
        // Writing to a string can't fail.
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">engine {engine}</text>",
            LEFT - 8.0,
            top + 14.0
        );
        for (index, bar) in merged(bars, *engine, 0.5 / scale).iter().enumerate() {
            let x = LEFT + (bar.start - from) * scale;
            let wide = ((bar.end - bar.start) * scale).max(0.5);
            let colour = match (bar.failed, COLOURS.get(index % COLOURS.len())) {
                (false, Some(colour)) => colour,
                _ => FAILED,
            };
            let _ = write!(
                out,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{BAR}\" fill=\"{colour}\"><title>{}</title></rect>",
                top + 3.0,
                escaped(&bar.title)
            );
        }
    }
    let _ = write!(
        out,
        "<path d=\"M{LEFT} {bottom}h{WIDTH}\" stroke=\"currentColor\" stroke-opacity=\"0.4\"/>"
    );
    let step = step(span);
    let mut tick = 0.0;
    while tick <= span * 1.0001 {
        let x = LEFT + tick * scale;
        let _ = write!(
            out,
            "<path d=\"M{x:.1} 0V{:.1}\" stroke=\"currentColor\" stroke-opacity=\"0.15\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 4.0,
            bottom + 17.0,
            seconds(tick, step)
        );
        tick += step;
    }
    if left_out > 0 {
        let _ = write!(
            out,
            "<text x=\"{LEFT}\" y=\"{:.1}\">and {left_out} more engines</text>",
            bottom + 34.0
        );
    }
    out.push_str("</svg>");
    out
}

/// An engine's bars in their order, those closer than `gap` seconds and shorter than that made one.
fn merged(bars: &[Bar], engine: u32, gap: f64) -> Vec<Bar> {
    let mut own: Vec<&Bar> = bars.iter().filter(|bar| bar.engine == engine).collect();
    own.sort_by(|a, b| a.start.total_cmp(&b.start));
    let mut out: Vec<(Bar, usize)> = Vec::new();
    for bar in own {
        match out.last_mut() {
            Some((last, count))
                if bar.start - last.end < gap
                    && bar.end - bar.start < gap
                    && (*count > 1 || last.end - last.start < gap)
                    && bar.failed == last.failed =>
            {
                last.end = last.end.max(bar.end);
                *count += 1;
                last.title = format!("{count} tasks");
            }
            _ => out.push((bar.clone(), 1)),
        }
    }
    out.into_iter().map(|(bar, _)| bar).collect()
}

/// The distance of ticks: 1, 2 or 5 times a power of ten, for about six of them.
fn step(span: f64) -> f64 {
    let rough = span / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let digit = rough / power;
    power
        * if digit < 1.5 {
            1.0
        } else if digit < 3.5 {
            2.0
        } else if digit < 7.5 {
            5.0
        } else {
            10.0
        }
}

fn seconds(at: f64, step: f64) -> String {
    if at == 0.0 {
        "0".to_owned()
    } else if step >= 0.999 {
        format!("{at:.0} s")
    } else if step >= 0.000_999 {
        format!("{:.0} ms", at * 1e3)
    } else {
        format!("{:.0} µs", at * 1e6)
    }
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(engine: u32, start: f64, end: f64) -> Bar {
        Bar {
            engine,
            start,
            end,
            failed: false,
            title: format!("{start} < {end}"),
        }
    }

    #[test]
    fn one_bar_a_task_in_its_engines_lane() {
        let mut bars = vec![bar(0, 0.0, 1.0), bar(0, 1.0, 2.0), bar(3, 0.5, 1.75)];
        bars[2].failed = true;
        let picture = svg(&bars, 0.0, 2.0);
        assert_eq!(picture.matches("<rect").count(), 3);
        assert!(picture.contains(">engine 0<") && picture.contains(">engine 3<"));
        // A quarter of 640 after the left edge, in the second lane, for 1.25 of 2 seconds.
        assert!(
            picture.contains(
                "<rect x=\"232.0\" y=\"25.0\" width=\"400.0\" height=\"16\" fill=\"#e0524f\">"
            ),
            "{picture}"
        );
        assert!(picture.contains("<title>0 &lt; 1</title>"));
        assert!(
            picture.contains(">0<")
                && picture.contains(">200 ms<")
                && picture.contains(">2000 ms<"),
            "{picture}"
        );
    }

    #[test]
    fn thousands_of_short_tasks_make_a_small_picture() {
        let bars: Vec<Bar> = (0..100_000)
            .map(|n| bar(n % 2, f64::from(n) * 1e-5, f64::from(n + 1) * 1e-5))
            .collect();
        let picture = svg(&bars, 0.0, 1.0);
        assert!(picture.len() < 10_000, "{}", picture.len());
        assert!(picture.contains("<title>50000 tasks</title>"));
    }

    #[test]
    fn nothing_and_no_time_are_pictures_too() {
        assert!(svg(&[], 0.0, 0.0).ends_with("</svg>"));
        assert!(svg(&[bar(1, 5.0, 5.0)], 5.0, 5.0).contains("<rect"));
        let many: Vec<Bar> = (0..100).map(|n| bar(n, 0.0, 1.0)).collect();
        assert!(svg(&many, 0.0, 1.0).contains("and 36 more engines"));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            [step(6.0), step(0.013), step(100.0)].map(|step| format!("{step:.3}")),
            ["1.000", "0.002", "20.000"]
        );
        assert_eq!(seconds(0.004, 0.002), "4 ms");
        assert_eq!(seconds(0.00004, 0.00002), "40 µs");
    }
}
