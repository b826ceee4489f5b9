//! What is sealed in the store: a credential and when it expires.

use zeroize::Zeroizing;

use crate::clock::UnixMillis;
use crate::codec::{Reader, Writer};
use crate::credential::{Credential, Issued};
use crate::hawk::Credentials;

const VERSION: u8 = 1;
const BEARER: u8 = 0;
const TASKCLUSTER: u8 = 1;

/// Encodes `issued`, which is used until `end` at most; `None` if it is a credential that is not shared.
pub(super) fn encode(issued: &Issued, end: UnixMillis) -> Option<Zeroizing<Vec<u8>>> {
    let mut writer = Writer::with_capacity(1024);
    writer.byte(VERSION);
    let end = issued.expires_at.map_or(end, |at| at.min(end));
    writer.number(u64::try_from(end.0).unwrap_or(0));
    match (&issued.credential, &issued.original) {
        (Credential::Bearer(token), _) => {
            writer.byte(BEARER);
            writer.token(token.expose());
        }
        (Credential::Taskcluster { .. }, Some(credentials)) => {
            writer.byte(TASKCLUSTER);
            credentials.write(&mut writer);
        }
        (Credential::Taskcluster { .. }, None) | (Credential::Basic { .. }, _) => return None,
    }
    Some(writer.finish())
}

/// Decodes what [`encode`] wrote; `None` for anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<Issued> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let expires_at = i64::try_from(reader.number()?).ok().map(UnixMillis)?;
    let (credential, original) = match reader.byte()? {
        BEARER => (Credential::Bearer(reader.token()?), None),
        TASKCLUSTER => {
            let credentials = Credentials::read(&mut reader)?;
            let credential = Credential::taskcluster(&credentials).ok()?;
            (credential, Some(credentials))
        }
        _ => return None,
    };
    reader.is_at_end().then_some(Issued {
        credential,
        expires_at: Some(expires_at),
        original,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hawk::Certificate;

    /// Later than the credentials of [`taskcluster`] expire.
    const END: UnixMillis = UnixMillis::from_secs(1_001_000);

    fn taskcluster(narrowed: Option<Vec<String>>) -> Issued {
        let original = Credentials {
            client_id: "sso/ann".into(),
            access_token: "an-access-token".into(),
            certificate: Some(Certificate::parse(r#"{"version":1,"scopes":["a"]}"#).unwrap()),
            authorized_scopes: narrowed,
        };
        Issued {
            credential: Credential::taskcluster(&original).unwrap(),
            expires_at: Some(UnixMillis::from_secs(1_000_900)),
            original: Some(original),
        }
    }

    #[test]
    fn a_credential_is_read_as_it_was_written() {
        for narrowed in [
            None,
            Some(vec![]),
            Some(vec!["a".to_owned(), String::new()]),
        ] {
            let written = encode(&taskcluster(narrowed.clone()), END).unwrap();
            let read = decode(&written).unwrap();
            assert_eq!(read.expires_at, Some(UnixMillis::from_secs(1_000_900)));
            let original = read.original.unwrap();
            assert_eq!(original.client_id, "sso/ann");
            assert_eq!(original.access_token.expose(), "an-access-token");
            assert_eq!(original.authorized_scopes, narrowed);
            let certificate = original.certificate.unwrap();
            assert_eq!(certificate.as_json(), r#"{"version":1,"scopes":["a"]}"#);
        }
        let bearer = Issued {
            credential: Credential::Bearer("opaque".into()),
            expires_at: None,
            original: None,
        };
        let read = decode(&encode(&bearer, END).unwrap()).unwrap();
        assert_eq!(read.expires_at, Some(END));
        assert!(read.credential.is_sent_like(&bearer.credential));
    }

    #[test]
    fn anything_else_is_refused() {
        let written = encode(&taskcluster(None), END).unwrap();
        for length in 0..written.len() {
            assert!(decode(&written[..length]).is_none(), "{length}");
        }
        let mut longer = written.to_vec();
        longer.push(0);
        assert!(decode(&longer).is_none());
        let mut later_version = written.to_vec();
        later_version[0] += 1;
        assert!(decode(&later_version).is_none());
    }

    #[test]
    fn a_credential_of_this_replica_is_not_written() {
        let mut local = taskcluster(None);
        local.original = None;
        assert!(encode(&local, END).is_none());
    }
}
