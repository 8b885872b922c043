//! An argument that serde doesn't know.

struct Point {
    x: f64,
}

fn main() {
    let client = chorus::Client::connect().unwrap();
    let _ = client.all().map(vec![Point { x: 1.0 }], |point| point.x);
}
