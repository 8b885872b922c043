//! The functions that snippets call: values go through a folder that the environment names.

use chorus::__private::{give, take};

#[test]
fn through_a_folder() {
    let folder = std::env::temp_dir().join(format!("chorus-pieces-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let without = give("x", &1u8).unwrap_err();
    assert!(
        without.to_string().contains("this process is no engine"),
        "{without}"
    );
    // SAFETY: the only test of this program, so no other thread looks at the environment.
    unsafe { std::env::set_var("CHORUS_PIECES", &folder) };
    let value = (vec![1.5f64; 100_000], "text".to_owned());
    give("x", &value).unwrap();
    assert_eq!(take::<(Vec<f64>, String)>("x").unwrap(), value);
    let gone = take::<u8>("x").unwrap_err();
    assert!(
        gone.to_string()
            .starts_with("failed to push the variable `x`: "),
        "{gone}"
    );
    give("y", &300u16).unwrap();
    assert!(take::<String>("y").is_err());
    std::fs::remove_dir(&folder).unwrap();
}
