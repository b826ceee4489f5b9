//! Finds the access token in a Management API user: `{"identities": [{provider, connection,
//! access_token, …}]}`.

use serde::Deserialize;
use serde_json::Value;

use crate::credential::FetchError;
use crate::remote::http_client::HttpResponse;
use crate::remote::oauth::MAX_TOKEN_BYTES;
use crate::secret::SecretString;

#[derive(Deserialize)]
struct User {
    identities: Vec<Identity>,
}

/// The members that are used. Others are ignored: `user_id` may be a string or a number, and
/// `expires_in` is unreliable.
#[derive(Deserialize)]
struct Identity {
    provider: Value,
    connection: Value,
    access_token: Option<Value>,
}

/// The access token of the one identity of `provider` and `connection`.
pub(super) fn identity_token(
    response: &HttpResponse,
    provider: &str,
    connection: &str,
) -> Result<SecretString, FetchError> {
    // serde's own message may quote the body.
    let user: User = serde_json::from_slice(&response.body).map_err(|_| {
        bad("Management API: the response does not have the shape {identities: [{provider, connection, …}]}")
    })?;
    let is = |value: &Value, name: &str| value.as_str() == Some(name);
    let mut matching = user
        .identities
        .into_iter()
        .filter(|i| is(&i.provider, provider) && is(&i.connection, connection));
    let which = format!("of provider {provider:?} and connection {connection:?}");
    let Some(identity) = matching.next() else {
        return Err(FetchError::NotEntitled(format!(
            "the user has no identity {which}: they have never signed in with it or linked it"
        )));
    };
    let others = matching.count();
    if others > 0 {
        return Err(FetchError::NotEntitled(format!(
            "the user has {} identities {which}, and the right one cannot be determined",
            others + 1
        )));
    }
    match identity.access_token {
        None | Some(Value::Null) => Err(bad(
            "Management API: the identity has no access_token: grant read:user_idp_tokens to the client, or set via = \"vault\" if the connection stores its tokens in Token Vault",
        )),
        Some(Value::String(token)) => usable(SecretString::new(token)),
        Some(_) => Err(bad(
            "Management API: the identity's access_token is not a string",
        )),
    }
}

fn usable(token: SecretString) -> Result<SecretString, FetchError> {
    let text = token.expose();
    if text.len() > MAX_TOKEN_BYTES {
        return Err(FetchError::TooLarge(format!(
            "the identity's access_token is larger than {MAX_TOKEN_BYTES} bytes"
        )));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad(
            "Management API: the identity's access_token is empty or not allowed in a header",
        ));
    }
    Ok(token)
}

fn bad(what: &str) -> FetchError {
    FetchError::BadAnswer(what.to_owned())
}
