//! An iterator, where a vector is needed.

fn main() {
    let client = chorus::Client::connect().unwrap();
    let _ = client.all().map((0..10u64).map(|x| x * x), |x| x + 1);
}
