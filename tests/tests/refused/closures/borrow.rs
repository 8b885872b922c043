//! Items that borrow.

fn main() {
    let client = chorus::Client::connect().unwrap();
    let text = String::from("a b c");
    let words: Vec<&str> = text.split(' ').collect();
    let _ = client.all().map(&words, |word| word.len());
}
