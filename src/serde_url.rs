//! URLs as serde reads and writes them in JSON: `#[serde(with = "serde_url")]`, and
//! `serde_url::option` for one that need not be there.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use url::Url;

/// Writes the text.
///
/// # Errors
/// With the serializer's own.
pub fn serialize<S: Serializer>(url: &Url, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(url.as_str())
}

/// Reads an absolute URL.
///
/// # Errors
/// When it is none; the text is not repeated.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let text = String::deserialize(from)?;
    Url::parse(&text).map_err(|_| Error::custom("not an absolute URL"))
}

/// The same for a URL that need not be there.
pub mod option {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use url::Url;

    /// Writes the text, or null.
    ///
    /// # Errors
    /// With the serializer's own.
    #[allow(clippy::ref_option)] // serde's signature
    pub fn serialize<S: Serializer>(url: &Option<Url>, to: S) -> Result<S::Ok, S::Error> {
        url.as_ref().map(Url::as_str).serialize(to)
    }

    /// Reads an absolute URL or null.
    ///
    /// # Errors
    /// When it is neither; the text is not repeated.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Url>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| Url::parse(&text).map_err(|_| Error::custom("not an absolute URL")))
            .transpose()
    }
}
