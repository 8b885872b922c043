//! A closure that owns what it captures.

fn main() {
    let client = chorus::Client::connect().unwrap();
    let text = String::from("text");
    let _ = client.load_balanced_view().apply(move |n: usize| text.repeat(n), 3);
}
