//! An argument that borrows.

fn main() {
    let client = chorus::Client::connect().unwrap();
    let text = String::from("a b c");
    let _ = client.all().apply(|text: &str| text.len(), text.as_str());
}
