//! JSON as the protocol carries it: raw text that is not copied, and errors that do not repeat what a peer sent.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// One JSON value as the bytes that were received or that will be sent.
///
/// It is always well-formed JSON. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct RawJson(Bytes);

impl RawJson {
    /// The empty object, `{}`.
    pub fn empty_object() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    /// Takes `bytes` as they are once they are known to be one JSON value.
    ///
    /// # Errors
    /// When they are not well-formed JSON.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, JsonError> {
        // IgnoredAny skips strings without looking at their bytes, so UTF-8 is a check of its own.
        if std::str::from_utf8(&bytes).is_err() {
            return Err(JsonError::not_utf8());
        }
        serde_json::from_slice::<IgnoredAny>(&bytes)?;
        Ok(Self(bytes))
    }

    /// Renders `value`.
    ///
    /// # Errors
    /// When `value` has no JSON form, for instance a map whose keys are not strings.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, JsonError> {
        Ok(Self(Bytes::from(serde_json::to_vec(value)?)))
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    /// When the value has not the shape that `T` wants.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        Ok(serde_json::from_slice(&self.0)?)
    }

    /// The JSON text, which is valid UTF-8.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        let shown = self.0.get(..SHOWN).unwrap_or(&self.0);
        f.write_str(&String::from_utf8_lossy(shown))?;
        if self.0.len() > SHOWN {
            write!(f, ".. ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// Why a piece of JSON could not be read or written.
///
/// `serde_json` quotes the offending value in its messages, and that value may be a user's data or a key. This keeps the
/// place and, where one of our own fields is missing, its name; never anything that a peer wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at line {line} column {column}")]
pub struct JsonError {
    /// What is wrong.
    pub problem: JsonProblem,
    /// Line of the problem, counted from 1; 0 when it has no place in a text.
    pub line: usize,
    /// Column of the problem, counted from 1; 0 when it has no place in a text.
    pub column: usize,
}

/// The kinds of [`JsonError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonProblem {
    /// The text ends within a value.
    Truncated,
    /// The text is not JSON.
    Syntax,
    /// The text is not UTF-8.
    NotUtf8,
    /// A field that the message must have is not there.
    MissingField(String),
    /// The JSON is well-formed but has another shape than the message.
    Shape,
}

impl fmt::Display for JsonProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated JSON"),
            Self::Syntax => f.write_str("malformed JSON"),
            Self::NotUtf8 => f.write_str("JSON that is not UTF-8"),
            Self::MissingField(name) => write!(f, "JSON without the field `{name}`"),
            Self::Shape => f.write_str("JSON of an unexpected shape"),
        }
    }
}

impl JsonError {
    fn not_utf8() -> Self {
        Self {
            problem: JsonProblem::NotUtf8,
            line: 0,
            column: 0,
        }
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        use serde_json::error::Category;
        let problem = match error.classify() {
            Category::Eof => JsonProblem::Truncated,
            Category::Io | Category::Syntax => JsonProblem::Syntax,
            // The name in this message is one of a Rust struct's fields, hence ours.
            Category::Data => match error
                .to_string()
                .strip_prefix("missing field `")
                .and_then(|rest| rest.split_once('`'))
            {
                Some((name, _)) => JsonProblem::MissingField(name.to_owned()),
                None => JsonProblem::Shape,
            },
        };
        Self {
            problem,
            line: error.line(),
            column: error.column(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_accepted() {
        for good in ["{}", "null", " [1, \"\u{e9}\"] "] {
            assert!(RawJson::from_bytes(Bytes::from(good)).is_ok(), "{good}");
        }
        for (bad, problem) in [
            (&b"{"[..], JsonProblem::Truncated),
            (b"", JsonProblem::Truncated),
            (b"{} {}", JsonProblem::Syntax),
            (b"\"\xff\"", JsonProblem::NotUtf8),
        ] {
            assert_eq!(
                RawJson::from_bytes(Bytes::from_static(bad))
                    .unwrap_err()
                    .problem,
                problem
            );
        }
    }

    #[test]
    fn errors_name_our_fields_and_never_a_peers_values() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only its errors matter")]
        struct Wanted {
            code: u32,
        }
        let missing = RawJson::from_bytes(Bytes::from_static(b"{}"))
            .unwrap()
            .parse::<Wanted>()
            .unwrap_err();
        assert_eq!(missing.problem, JsonProblem::MissingField("code".into()));

        let wrong = RawJson::from_bytes(Bytes::from_static(br#"{"code": "hunter2"}"#)).unwrap();
        let wrong = wrong.parse::<Wanted>().unwrap_err();
        assert_eq!(wrong.problem, JsonProblem::Shape);
        assert!(!format!("{wrong} {wrong:?}").contains("hunter2"));
    }

    #[test]
    fn debug_is_short() {
        let long = RawJson::from_value(&"x".repeat(10_000)).unwrap();
        assert!(format!("{long:?}").len() < 300);
    }
}
