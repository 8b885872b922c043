//! A closure that captures.

fn main() {
    let client = chorus::Client::connect().unwrap();
    let factor = 3u64;
    let _ = client.all().map(0..10u64, |x| x * factor);
}
