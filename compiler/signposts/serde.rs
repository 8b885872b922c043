//! What rust-analyzer sees of `serde` in a notebook without dependencies of its own: the traits' signatures. rustc has the crate itself.
//!
//! Every type has the traits here. Which do, rustc knows; rust-analyzer has to find the types of variables, and what `chorus` gives for a `Vec<T>`
//! depends on whether `T` can be sent.

pub use de::{Deserialize, Deserializer};
pub use ser::{Serialize, Serializer};

/// Values that can be read from a data format.
pub mod de {
    /// A value that can be read from any data format.
    pub trait Deserialize<'de>: Sized {
        /// Reads the value.
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    }

    impl<'de, T> Deserialize<'de> for T {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<T, D::Error> {
            loop {}
        }
    }

    /// A value that borrows nothing from what it is read from.
    pub trait DeserializeOwned: for<'de> Deserialize<'de> {}
    impl<T> DeserializeOwned for T where T: for<'de> Deserialize<'de> {}

    /// A data format that can be read.
    pub trait Deserializer<'de>: Sized {
        /// What goes wrong.
        type Error: Error;
    }

    /// What goes wrong when a value is read.
    pub trait Error: Sized + std::error::Error {
        /// An error in the words of whoever implements [`Deserialize`].
        fn custom<T: std::fmt::Display>(message: T) -> Self;
    }
}

/// Values that can be written to a data format.
pub mod ser {
    /// A value that can be written to any data format.
    pub trait Serialize {
        /// Writes the value.
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    }

    impl<T: ?Sized> Serialize for T {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            loop {}
        }
    }

    /// A data format that can be written.
    pub trait Serializer: Sized {
        /// What a written value is.
        type Ok;
        /// What goes wrong.
        type Error: Error;
    }

    /// What goes wrong when a value is written.
    pub trait Error: Sized + std::error::Error {
        /// An error in the words of whoever implements [`Serialize`].
        fn custom<T: std::fmt::Display>(message: T) -> Self;
    }
}
