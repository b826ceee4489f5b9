//! Credentials in the compact encoding of what is sealed: in sessions, and in the store of a fleet.

use super::{Certificate, Credentials};
use crate::codec::{Reader, Writer};

impl Credentials {
    /// Writes the credentials.
    pub fn write(&self, writer: &mut Writer) {
        writer.text(&self.client_id);
        writer.token(self.access_token.expose());
        let certificate = self.certificate.as_ref().map(Certificate::as_json);
        writer.optional(certificate, Writer::text);
        let scopes = self.authorized_scopes.as_deref();
        writer.optional(scopes, |writer, scopes: &[String]| {
            writer.number(scopes.len() as u64);
            for scope in scopes {
                writer.text(scope);
            }
        });
    }

    /// Reads what [`Self::write`] wrote; `None` for anything else.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let client_id = reader.text()?.to_owned();
        let access_token = reader.token()?;
        let certificate = match reader.optional(Reader::text)? {
            Some(json) => Some(Certificate::parse(json).ok()?),
            None => None,
        };
        let authorized_scopes = reader.optional(|reader| {
            let count = reader.number()?;
            (0..count)
                .map(|_| reader.text().map(ToOwned::to_owned))
                .collect()
        })?;
        Some(Self {
            client_id,
            access_token,
            certificate,
            authorized_scopes,
        })
    }
}
