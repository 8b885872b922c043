//! What compiles: the counterpart of the programs in `refused`.

fn double<T: std::ops::Add<Output = T> + Copy>(value: T) -> T {
    value + value
}

fn main() {
    if let Ok(client) = chorus::Client::connect() {
        let _ = client.all().map(0..10u64, |x| x * 3);
        let _ = client.all().apply(double::<u32>, 1);
        let _ = client
            .load_balanced_view()
            .map(&["a".to_owned()], |word| word.len());
    }
}
