//! The cells of tour.ipynb, a tour of the kernel. `// %%` begins a cell; src/lib.rs reads this file and its test keeps the
//! notebook equal to it.

// %% [markdown]
// # A tour of Chorus
//
// Each cell is compiled by `rustc` and runs at full speed. What it defines stays for the cells after it.
//
// Two cells below fail on purpose. To run everything at once (*Run → Run All Cells*), keep their tag `raises-exception`: it
// tells Jupyter to go on.

// %% [markdown]
// ## Values
//
// A cell that ends with an expression shows its value. A semicolon at the end hides it.

// %%
let numbers: Vec<u64> = (1..=10).map(|n| n * n).collect();
numbers.iter().sum::<u64>()

// %% [markdown]
// `let` keeps the variable, with its type, for later cells:

// %%
numbers.iter().filter(|n| *n % 2 == 0).collect::<Vec<_>>()

// %% [markdown]
// `println!` goes to the cell's output, `eprintln!` to its error output.

// %%
println!("{} numbers", numbers.len());
eprintln!("the largest is {}", numbers[numbers.len() - 1]);

// %% [markdown]
// `:vars` lists the variables and their types.

// %%
:vars

// %% [markdown]
// ## Functions, types, traits
//
// Items are defined as anywhere in Rust. Run a cell again to replace its definitions.

// %%
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Circle { radius: f64 },
    Rectangle { width: f64, height: f64 },
}

trait Area {
    fn area(&self) -> f64;
}

impl Area for Shape {
    fn area(&self) -> f64 {
        match self {
            Shape::Circle { radius } => std::f64::consts::PI * radius * radius,
            Shape::Rectangle { width, height } => width * height,
        }
    }
}

fn total_area(shapes: &[impl Area]) -> f64 {
    shapes.iter().map(Area::area).sum()
}

// %%
let shapes = vec![Shape::Circle { radius: 1.0 }, Shape::Rectangle { width: 2.0, height: 3.0 }];
format!("{:.3}", total_area(&shapes))

// %% [markdown]
// ## Errors
//
// `?` works at the top of a cell. If there is an error, the cell ends there and shows it.

// %%
let answer: i32 = "42".parse()?;
answer + 1

// %% tags=["raises-exception"]
let no_answer: i32 = "forty-two".parse()?;

// %% [markdown]
// A panic is an error too, with its message and the line of the cell. Variables that were there before are there afterwards.

// %% tags=["raises-exception"]
let index = numbers.len();
numbers[index]

// %%
numbers.len()

// %% [markdown]
// ## Crates
//
// `:dep` adds a crate from crates.io, written as in Cargo.toml. The first time it is downloaded and compiled.

// %%
:dep fastrand = "2"

// %%
let mut random = fastrand::Rng::with_seed(7);
let throws: Vec<u32> = (0..10).map(|_| random.u32(1..=6)).collect();
assert!(throws.iter().all(|eyes| (1..=6).contains(eyes)));
throws.len()

// %% [markdown]
// ## Async
//
// `.await` works at the top of a cell; Chorus runs it on Tokio. Naming only the features needed makes the first time shorter.

// %%
:dep tokio = { version = "1", features = ["rt-multi-thread", "time"] }

// %%
async fn double_later(n: u64) -> u64 {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    2 * n
}

let doubled = double_later(21).await;
doubled

// %% [markdown]
// ## More than text
//
// A type shows itself as HTML, as a picture or as anything else that JupyterLab knows if it has a method `evcxr_display`. It prints its
// content between two markers, the first of which names the MIME type.

// %%
struct Html(String);

impl Html {
    fn evcxr_display(&self) {
        println!("EVCXR_BEGIN_CONTENT text/html\n{}\nEVCXR_END_CONTENT", self.0);
    }
}

Html("<b>Bold</b>, <i>italic</i>, <span style='color:#cf5527'>rust-coloured</span>".to_string())

// %%
struct Svg(String);

impl Svg {
    fn evcxr_display(&self) {
        println!("EVCXR_BEGIN_CONTENT image/svg+xml\n{}\nEVCXR_END_CONTENT", self.0);
    }
}

let points: Vec<String> = (0..=200)
    .map(|step| step as f64 * 0.0314)
    .map(|t| format!("{:.1},{:.1}", 100.0 + 90.0 * (3.0 * t).sin(), 60.0 + 50.0 * (2.0 * t).cos()))
    .collect();
Svg(format!(
    "<svg xmlns='http://www.w3.org/2000/svg' width='200' height='120'><polyline points='{}' fill='none' stroke='#1f9a94' stroke-width='2'/></svg>",
    points.join(" ")
))

// %% [markdown]
// A PNG is given in base64. Two small crates encode it:

// %%
:dep png = "0.18"
:dep base64 = "0.22"

// %%
use base64::Engine as _;

struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    fn evcxr_display(&self) {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&self.rgb));
        match written {
            Ok(()) => {
                let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
                println!("EVCXR_BEGIN_CONTENT image/png\n{base64}\nEVCXR_END_CONTENT");
            }
            Err(error) => eprintln!("no picture: {error}"),
        }
    }
}

fn gradient(width: u32, height: u32) -> Picture {
    let pixel = |x, y| [(x * 255 / width) as u8, (y * 255 / height) as u8, 160];
    let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    Picture { width, height, rgb }
}

gradient(160, 100)

// %% [markdown]
// ## When a cell dies
//
// Before a cell runs, Chorus keeps a copy of all variables. If the cell is interrupted, or crashes the process, the copy takes over and
// they are as they were. `%checkpoint off` and `%checkpoint on` switch this.

// %%
%checkpoint status
