//! What a session's cookie contains, or its record in the shared store.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{MAX_CLOCK_SKEW, SessionGrant, SessionId, UserSession};
use crate::clock::{Now, UnixMillis};
use crate::codec::{Reader, Writer};
use crate::credential::{Credential, Lease};
use crate::hawk::Credentials;
use crate::secret::SecretString;
use crate::token::BearerToken;

/// The version of the encoding.
const VERSION: u8 = 1;
const OIDC: u8 = 0;
const TASKCLUSTER: u8 = 1;

/// The longest name and e-mail address that are kept, in bytes. They are for display.
const MAX_DISPLAY_BYTES: usize = 256;

/// Encodes `session`, which was last used at `active_at`; `with_id_token` says whether the ID token is
/// kept. The idle limit is not encoded: it follows from the settings at the time of decoding.
pub(super) fn encode(
    session: &UserSession,
    active_at: UnixMillis,
    with_id_token: bool,
) -> Zeroizing<Vec<u8>> {
    let mut writer = Writer::with_capacity(4096);
    writer.byte(VERSION);
    writer.fixed(&session.id.0);
    writer.number(session.generation.into());
    for time in [session.signed_in_at, session.expires_at, active_at] {
        write_time(&mut writer, time);
    }
    writer.text(&session.subject);
    let display = |text: &Option<String>| {
        let text = text.clone();
        text.filter(|text| text.len() <= MAX_DISPLAY_BYTES)
    };
    for text in [
        display(&session.name),
        display(&session.email),
        session.provider_session.clone(),
    ] {
        writer.optional(text.as_deref(), Writer::text);
    }
    write_grant(&mut writer, session, with_id_token);
    writer.finish()
}

fn write_grant(writer: &mut Writer, session: &UserSession, with_id_token: bool) {
    match &session.grant {
        SessionGrant::Oidc {
            access_token,
            access_token_expires_at,
            refresh_token,
            id_token,
        } => {
            writer.byte(OIDC);
            writer.token(access_token.expose());
            let time = |writer: &mut Writer, time: &UnixMillis| write_time(writer, *time);
            writer.optional(access_token_expires_at.as_ref(), time);
            writer.optional(session.renew_at.as_ref(), time);
            let token = |writer: &mut Writer, token: &SecretString| writer.token(token.expose());
            writer.optional(refresh_token.as_ref(), token);
            let id_token = id_token.as_ref().filter(|_| with_id_token);
            writer.optional(id_token, token);
        }
        SessionGrant::Taskcluster {
            credentials,
            expires_at,
            ..
        } => {
            writer.byte(TASKCLUSTER);
            write_time(writer, *expires_at);
            credentials.write(writer);
        }
    }
}

/// A time before 1970, which no clock shows, becomes 1970.
fn write_time(writer: &mut Writer, time: UnixMillis) {
    writer.number(u64::try_from(time.0).unwrap_or(0));
}

/// The session that [`encode`] wrote, with the limits of now: they may be shorter than they were then.
/// `None` for anything else, and for what is in the future.
pub(super) fn read(
    bytes: &[u8],
    idle: Duration,
    lifetime: Duration,
    now: Now,
) -> Option<UserSession> {
    let (mut session, active_at) = decode(bytes, now)?;
    let latest = now.wall.plus(MAX_CLOCK_SKEW);
    if session.signed_in_at > latest || active_at > latest {
        return None;
    }
    let longest = session.signed_in_at.plus(lifetime);
    session.expires_at = session.expires_at.min(longest);
    session.idle_expires_at = active_at.plus(idle);
    Some(session)
}

/// Decodes what [`encode`] wrote, into the session, without its idle limit, and when it was last used;
/// `None` for anything else.
pub(super) fn decode(bytes: &[u8], now: Now) -> Option<(UserSession, UnixMillis)> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let id = SessionId(reader.fixed()?);
    let generation = u32::try_from(reader.number()?).ok()?;
    let signed_in_at = read_time(&mut reader)?;
    let expires_at = read_time(&mut reader)?;
    let active_at = read_time(&mut reader)?;
    let subject = reader.text()?.to_owned();
    let name = reader.optional(Reader::text)?.map(ToOwned::to_owned);
    let email = reader.optional(Reader::text)?.map(ToOwned::to_owned);
    let provider_session = reader.optional(Reader::text)?.map(ToOwned::to_owned);
    let (grant, renew_at) = match reader.byte()? {
        OIDC => read_oidc(&mut reader)?,
        TASKCLUSTER => (read_taskcluster(&mut reader, now)?, None),
        _ => return None,
    };
    let session = UserSession {
        id,
        generation,
        grant,
        subject,
        name,
        email,
        provider_session,
        signed_in_at,
        expires_at,
        idle_expires_at: active_at,
        renew_at,
        entry: None,
    };
    reader.is_at_end().then_some((session, active_at))
}

fn read_time(reader: &mut Reader<'_>) -> Option<UnixMillis> {
    i64::try_from(reader.number()?).ok().map(UnixMillis)
}

fn read_oidc(reader: &mut Reader<'_>) -> Option<(SessionGrant, Option<UnixMillis>)> {
    let access_token = BearerToken::new(reader.token()?.expose()).ok()?;
    let access_token_expires_at = reader.optional(read_time)?;
    let renew_at = reader.optional(read_time)?;
    let refresh_token = reader.optional(Reader::token)?;
    let id_token = reader.optional(Reader::token)?;
    let grant = SessionGrant::Oidc {
        access_token,
        access_token_expires_at,
        refresh_token,
        id_token,
    };
    Some((grant, renew_at))
}

fn read_taskcluster(reader: &mut Reader<'_>, now: Now) -> Option<SessionGrant> {
    let expires_at = read_time(reader)?;
    let credentials = Credentials::read(reader)?;
    let credential = Credential::taskcluster(&credentials).ok()?;
    Some(SessionGrant::Taskcluster {
        lease: Lease::detached(credential, expires_at, now),
        credentials,
        expires_at,
    })
}
