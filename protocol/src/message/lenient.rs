//! Reading what real clients write: `null` where the protocol has a value means the value's default.

use serde::{Deserialize, Deserializer};

/// A `T`, or its default for `null`.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A flag that is true unless it says otherwise.
pub(super) fn or_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or(true))
}

/// The default that goes with [`or_true`] when the field is absent.
pub(super) fn yes() -> bool {
    true
}
