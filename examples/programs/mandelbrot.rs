//! A program outside of notebooks: starts a cluster of engines on this machine, has them draw the Mandelbrot set line by line, and tells whether
//! that was faster than drawing it alone.
//!
//! ```sh
//! cargo build --release && CHORUS=target/release/chorus cargo run --release -p examples --example mandelbrot -- 2
//! ```
//!
//! The closure runs in this program's own executable, which the engines start for it: nothing has to be registered or installed there.

use chorus::Cluster;
use std::time::Instant;

const WIDTH: u32 = 96;
const HEIGHT: u32 = 36;
/// Steps after which a point counts as one of the set. Points of the set cost all of them and others few, so lines are very uneven.
const STEPS: u32 = 200_000;

/// One line of the picture.
fn line(row: u32) -> String {
    let y = (f64::from(row) + 0.5) / f64::from(HEIGHT) * 2.4 - 1.2;
    (0..WIDTH)
        .map(|column| shade(f64::from(column) / f64::from(WIDTH) * 3.2 - 2.2, y))
        .collect()
}

/// How long it takes from the point until it is clear that it leads to infinity.
fn shade(x: f64, y: f64) -> char {
    let (mut re, mut im) = (0.0, 0.0);
    for step in 0..STEPS {
        if re * re + im * im > 4.0 {
            return [' ', '.', ':', '-', '=', '+', '*', '%'][step.ilog2().min(7) as usize];
        }
        (re, im) = (re * re - im * im + x, 2.0 * re * im + y);
    }
    '#'
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engines = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => u32::try_from(std::thread::available_parallelism()?.get())?,
    };
    let begin = Instant::now();
    let alone: Vec<String> = (0..HEIGHT).map(line).collect();
    let serial = begin.elapsed();

    let cluster = Cluster::start(engines)?;
    let view = cluster.connect()?.load_balanced_view().chunk_size(1);
    // Engines start this program when they get the first call of it; what is measured is drawing.
    view.map_sync(0..engines, |_| ())?;
    let begin = Instant::now();
    let result = view.map(0..HEIGHT, line);
    let picture = result.get()?;
    let parallel = begin.elapsed();

    println!("{}", picture.join("\n"));
    assert_eq!(picture, alone, "engines draw what this program draws");
    println!("\nalone: {serial:.1?}, on {engines} engines: {parallel:.1?}");
    for engine in result.engines() {
        let metadata = result.metadata();
        let lines = metadata.iter().filter(|task| task.engine == Some(engine));
        println!("engine {engine} drew {} lines", lines.count());
    }
    Ok(())
}
