//! Serialises a [`Url`] as a string: use `#[serde(with = "serde_url")]`, or `serde_url::option`
//! for an `Option`.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use url::Url;

/// Writes the URL as a string.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(url: &Url, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(url.as_str())
}

/// Reads an absolute URL.
///
/// # Errors
/// When the string is not an absolute URL; the message does not quote it.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let text = String::deserialize(from)?;
    Url::parse(&text).map_err(|_| Error::custom("not an absolute URL"))
}

/// The same for an optional URL.
pub mod option {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use url::Url;

    /// Writes the URL as a string, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    #[allow(clippy::ref_option)] // serde's signature
    pub fn serialize<S: Serializer>(url: &Option<Url>, to: S) -> Result<S::Ok, S::Error> {
        url.as_ref().map(Url::as_str).serialize(to)
    }

    /// Reads an absolute URL or null.
    ///
    /// # Errors
    /// When the value is neither; the message does not quote it.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Url>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| Url::parse(&text).map_err(|_| Error::custom("not an absolute URL")))
            .transpose()
    }
}
