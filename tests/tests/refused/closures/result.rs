//! A result that serde doesn't know.

struct Point(f64);

fn main() {
    let client = chorus::Client::connect().unwrap();
    let _ = client.load_balanced_view().apply(|x: f64| Point(x), 1.0);
}
