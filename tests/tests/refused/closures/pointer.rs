//! A function pointer: its code is not part of its type.

fn main() {
    let client = chorus::Client::connect().unwrap();
    let double: fn(u32) -> u32 = |x| 2 * x;
    let _ = client.all().apply(double, 1);
}
