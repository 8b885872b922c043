//! The cells of forestfire.ipynb: a parameter sweep with very uneven tasks. `// %%` begins a cell; src/lib.rs reads this file and its test keeps
//! the notebook equal to it.

// %% [markdown]
// # How dense may a forest be before a fire crosses it?
//
// A square of land, on each spot of which a tree stands with a certain probability, the *density*. The trees at the left edge catch fire; a burning
// tree sets its four neighbours on fire and is gone. In a sparse forest the fire dies at once. In a dense one it runs straight to the other side.
// In between, close to a density of 0.593 (physicists know it as the threshold of *site percolation*), it finds its way through a maze, and burns
// longest.
//
// To see this, many densities have to be tried, with many forests each. That is work for engines. And since some of these tasks
// take a hundred times longer than others, it matters who gets which.

// %%
use serde::{Deserialize, Serialize};

/// What became of the forests of one density, on average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Outcome {
    density: f64,
    /// The share of the trees that burnt.
    burnt: f64,
    /// How long it burnt, in lengths of the forest: 1 is straight to the other side.
    duration: f64,
}

const SIDE: usize = 300;
const FORESTS: u64 = 20;

/// Lets one forest burn: the trees there were, those that burnt, and the steps it took.
fn burn(density: f64, seed: u64) -> (usize, usize, usize) {
    let mut state = seed;
    let mut random = move || {
        // SplitMix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    // A bare strip around the forest saves asking whether a neighbour is within it.
    let width = SIDE + 2;
    let mut tree = vec![false; width * width];
    for row in 1..=SIDE {
        for column in 1..=SIDE {
            tree[row * width + column] = random() < density;
        }
    }
    let trees = tree.iter().filter(|tree| **tree).count();
    let mut front: Vec<usize> = (1..=SIDE).map(|row| row * width + 1).filter(|at| std::mem::take(&mut tree[*at])).collect();
    let (mut burnt, mut steps) = (0, 0);
    while !front.is_empty() {
        burnt += front.len();
        steps += 1;
        let mut next = Vec::new();
        for at in front {
            for neighbour in [at - width, at - 1, at + 1, at + width] {
                if std::mem::take(&mut tree[neighbour]) {
                    next.push(neighbour);
                }
            }
        }
        front = next;
    }
    (trees, burnt, steps)
}

/// Lets the forests of one density burn.
fn outcome(density: f64) -> Outcome {
    let fires: Vec<_> = (0..FORESTS).map(|seed| burn(density, seed)).collect();
    let mean = |value: fn(&(usize, usize, usize)) -> f64| fires.iter().map(value).sum::<f64>() / fires.len() as f64;
    Outcome {
        density,
        burnt: mean(|(trees, burnt, _)| *burnt as f64 / *trees as f64),
        duration: mean(|(_, _, steps)| *steps as f64 / SIDE as f64),
    }
}

let densities: Vec<f64> = (0..96).map(|n| 0.05 + f64::from(n) * 0.01).collect();
println!("{} densities, {} forests", densities.len(), densities.len() as u64 * FORESTS);

// %% [markdown]
// On one core, with the clock beside it:

// %%
let begin = std::time::Instant::now();
let alone: Vec<Outcome> = densities.iter().map(|density| outcome(*density)).collect();
let serial = begin.elapsed();
println!("one core: {serial:.2?}");

// %% [markdown]
// ## Every engine gets its share: `DirectView`
//
// `client.all()` is a view of all engines. `map` cuts the densities into as many parts as there are engines, in their order. `outcome` travels as it is:
// engines load the code that this notebook has compiled, types and all.
//
// A cell that ends in the result shows how far it is, and then what ran where. Look at the picture: whoever got the sparse forests has nothing to do any
// more while the others are still at work.

// %%
use chorus::Client;

let client = Client::connect()?;
let fixed = client.all().map(&densities, outcome);
fixed

// %% [markdown]
// ## Whoever is free gets the next one: `LoadBalancedView`
//
// The same work as many small tasks. The scheduler gives each to an engine that has little to do.

// %%
let balanced = client.load_balanced_view().chunk_size(1).map(&densities, outcome);
balanced

// %% [markdown]
// All three have computed the same. How much faster was it?

// %%
assert!(fixed.get()? == alone && balanced.get()? == alone, "engines and notebook differ");
let times = [("one core", Some(serial)), ("an equal share each", fixed.wall_time()), ("load balanced", balanced.wall_time())];
for (name, time) in times {
    let time = time.unwrap_or_default();
    println!("{name:<20} {:>8.0} ms   {:.2} times one core", time.as_secs_f64() * 1e3, serial.as_secs_f64() / time.as_secs_f64());
}

// %% [markdown]
// ## The answer
//
// Below the threshold next to nothing burns, above it nearly everything; and at it, the fire takes longest.

// %%
#[derive(Clone)]
struct Curves(Vec<Outcome>);

impl Curves {
    fn evcxr_display(&self) {
        let longest = self.0.iter().map(|outcome| outcome.duration).fold(0.0, f64::max);
        let (width, height) = (560.0, 240.0);
        let line = |value: &dyn Fn(&Outcome) -> f64| -> String {
            let points = self.0.iter().map(|outcome| format!("{:.1},{:.1}", 40.0 + outcome.density * width, 20.0 + (1.0 - value(outcome)) * height));
            points.collect::<Vec<_>>().join(" ")
        };
        let mut svg = String::from(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="640" height="310" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>"##,
        );
        for tick in 0..=10 {
            let x = 40.0 + f64::from(tick) * width / 10.0;
            svg += &format!(r##"<line x1="{x}" y1="20" x2="{x}" y2="260" stroke="#ddd"/><text x="{x}" y="278" text-anchor="middle">{:.1}</text>"##, f64::from(tick) / 10.0);
        }
        svg += &format!(r##"<polyline points="{}" fill="none" stroke="#cf5527" stroke-width="2"/>"##, line(&|outcome| outcome.burnt));
        svg += &format!(r##"<polyline points="{}" fill="none" stroke="#3569a8" stroke-width="2"/>"##, line(&|outcome| outcome.duration / longest));
        svg += r##"<text x="320" y="300" text-anchor="middle">density</text><text x="46" y="36" fill="#cf5527">share of the trees that burn</text>"##;
        svg += &format!(r##"<text x="46" y="54" fill="#3569a8">duration (top: {longest:.1} lengths of the forest)</text></svg>"##);
        println!("EVCXR_BEGIN_CONTENT image/svg+xml\n{svg}\nEVCXR_END_CONTENT");
        let slowest = self.0.iter().max_by(|a, b| a.duration.total_cmp(&b.duration));
        let density = slowest.map_or(0.0, |outcome| outcome.density);
        println!("EVCXR_BEGIN_CONTENT text/plain\nfires burn longest at a density of {density:.2}\nEVCXR_END_CONTENT");
    }
}

Curves(alone.clone())
