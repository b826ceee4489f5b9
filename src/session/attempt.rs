//! What an attempt's cookie contains.

use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use crate::clock::UnixMillis;
use crate::codec::{Reader, Writer};
use crate::secret::SecretString;
use crate::signin::SavedFlow;

/// The version of the encoding.
const VERSION: u8 = 1;

/// One sign-in, between the authorization request and the callback.
pub(super) struct SignInAttempt {
    /// Its times are of the wall clock, since the epoch.
    pub(super) flow: SavedFlow,
    /// The origin of the site where it began.
    pub(super) origin: String,
    /// Where the user goes afterwards.
    pub(super) return_to: String,
}

impl SignInAttempt {
    /// When it began.
    pub(super) fn began_at(&self) -> UnixMillis {
        UnixMillis::from_secs(0).plus(self.flow.started_at)
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::with_capacity(2048);
        let flow = &self.flow;
        writer.byte(VERSION);
        writer.number(u64::try_from(flow.started_at.as_millis()).unwrap_or(0));
        writer.text(&flow.issuer);
        writer.byte(u8::from(flow.iss_required));
        writer.text(flow.redirect_uri.as_str());
        writer.token(flow.state.expose());
        writer.token(&flow.nonce);
        writer.token(flow.code_verifier.expose());
        writer.text(&self.origin);
        writer.text(&self.return_to);
        writer.finish()
    }

    /// Decodes what [`Self::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return None;
        }
        let started_at = Duration::from_millis(reader.number()?);
        let issuer = reader.text()?.to_owned();
        let iss_required = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let redirect_uri = Url::parse(reader.text()?).ok()?;
        let token = |reader: &mut Reader<'_>| reader.token();
        let state = token(&mut reader)?;
        let nonce = token(&mut reader)?.expose().to_owned();
        let code_verifier: SecretString = token(&mut reader)?;
        let origin = reader.text()?.to_owned();
        let return_to = reader.text()?.to_owned();
        let flow = SavedFlow {
            issuer,
            iss_required,
            redirect_uri,
            state,
            nonce,
            code_verifier,
            started_at,
        };
        reader.is_at_end().then_some(Self {
            flow,
            origin,
            return_to,
        })
    }
}
