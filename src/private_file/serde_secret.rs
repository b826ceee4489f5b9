//! Serialises a [`SecretString`] in the clear, for private files only: use
//! `#[serde(with = "serde_secret")]`, or `serde_secret::option` for an `Option`.

use serde::{Deserialize, Deserializer, Serializer};

use crate::secret::SecretString;

/// Writes the secret as a string.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

/// Reads a string as a secret.
///
/// # Errors
/// Those of the deserializer.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::new)
}

/// The same for an optional secret.
pub mod option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::secret::SecretString;

    /// Writes the secret as a string, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    #[allow(clippy::ref_option)] // serde's signature
    pub fn serialize<S: Serializer>(
        secret: &Option<SecretString>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(SecretString::expose).serialize(to)
    }

    /// Reads a string or null.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SecretString>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(SecretString::new))
    }
}
