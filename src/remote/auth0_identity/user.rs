//! What the Management API says of a user: `{"identities": [{provider, connection, user_id,
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

/// Whatever else is in it does not matter: `user_id` is a string here and a number there,
/// and `expires_in` says nothing that holds.
#[derive(Deserialize)]
struct Identity {
    provider: Value,
    connection: Value,
    access_token: Option<Value>,
}

/// The access token of the one identity of `provider` and `connection`.
pub(super) fn identity_token(
    answer: &HttpResponse,
    provider: &str,
    connection: &str,
) -> Result<SecretString, FetchError> {
    // serde's own text would quote from the body.
    let user: User = serde_json::from_slice(&answer.body).map_err(|_| {
        bad("Management API: the answer does not have the shape {identities: [{provider, connection, …}]}")
    })?;
    let is = |value: &Value, name: &str| value.as_str() == Some(name);
    let mut fitting = user
        .identities
        .into_iter()
        .filter(|i| is(&i.provider, provider) && is(&i.connection, connection));
    let which = format!("of provider {provider:?} and connection {connection:?}");
    let Some(identity) = fitting.next() else {
        return Err(FetchError::NotEntitled(format!(
            "the user has no identity {which}: they never signed in with it, or never linked it"
        )));
    };
    let others = fitting.count();
    if others > 0 {
        return Err(FetchError::NotEntitled(format!(
            "the user has {} identities {which}: which one is meant cannot be told",
            others + 1
        )));
    }
    match identity.access_token {
        None | Some(Value::Null) => Err(bad(
            "Management API: the identity has no access_token: grant read:user_idp_tokens to the client, or write via = \"vault\" where the connection keeps its tokens in Token Vault",
        )),
        Some(Value::String(token)) => usable(SecretString::new(token)),
        Some(_) => Err(bad(
            "Management API: the identity's access_token is no string",
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
            "Management API: the identity's access_token is empty or has characters that no header takes",
        ));
    }
    Ok(token)
}

fn bad(what: &str) -> FetchError {
    FetchError::BadAnswer(what.to_owned())
}
