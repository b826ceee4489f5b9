//! Secrets as serde writes them into a private file, and nowhere else:
//! `#[serde(with = "serde_secret")]`, and `serde_secret::option` for one that need not be there.

use serde::{Deserialize, Deserializer, Serializer};

use crate::secret::SecretString;

/// Writes the text itself.
///
/// # Errors
/// With the serializer's own.
pub fn serialize<S: Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

/// Reads a text.
///
/// # Errors
/// With the deserializer's own.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::new)
}

/// The same for a secret that need not be there.
pub mod option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::secret::SecretString;

    /// Writes the text itself, or null.
    ///
    /// # Errors
    /// With the serializer's own.
    #[allow(clippy::ref_option)] // serde's signature
    pub fn serialize<S: Serializer>(
        secret: &Option<SecretString>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(SecretString::expose).serialize(to)
    }

    /// Reads a text or null.
    ///
    /// # Errors
    /// With the deserializer's own.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SecretString>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(SecretString::new))
    }
}
