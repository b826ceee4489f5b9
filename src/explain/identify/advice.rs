//! What to do about a token: for each kind and provider, the way to a token that hawkgate accepts.

use super::Decoded;
use super::kind::Kind;
use super::section::{GRAPH, is_of_the_provider, profile};
use crate::clock::UnixMillis;
use crate::explain::shown::{duration, seconds};
use crate::token::Provider;
use crate::token::settings::Algorithm;

/// What to do about this token, the most important first.
pub(super) fn of(token: &Decoded, now: UnixMillis) -> Vec<String> {
    let mut advice = Vec::new();
    advice.extend(for_kind(token));
    advice.extend(for_header(token));
    if token.kind.is_for_apis() {
        advice.extend(for_audience(token));
        advice.extend(for_times(token, now));
        if token.claims.contains_key("cnf") {
            let text = "it is bound to a key (cnf; DPoP or mutual TLS), and hawkgate takes bearer tokens only: \
                 switch the binding off for this client";
            advice.push(text.to_owned());
        }
        advice.extend(for_provider(token).map(str::to_owned));
    }
    advice
}

/// What to do in place of an opaque token.
pub(super) fn for_opaque() -> Vec<String> {
    [
        "if your identity provider signs JWTs for APIs, ask it for one: name your API in the request, as \
         audience= (Auth0), resource= (RFC 8707) or a scope of it (Entra: scope=api://<application id>/.default). \
         Then use an issuer of kind oidc",
        "otherwise let hawkgate ask the issuer about each token: kind = \"introspection\", as below",
        "a token that only the route's source understands, such as Taskcluster's OAuth2 tokens, needs an issuer of \
         kind = \"delegated\"",
    ]
    .map(str::to_owned)
    .into()
}

/// What to do about a JWE, whose header names its issuer at some providers.
pub(super) fn for_encrypted(token: &Decoded) -> Vec<String> {
    let first = match token.provider {
        Some(Provider::Auth0) => {
            "Auth0 issues such a token, which is for its /userinfo only, when the request names no API: add \
             audience=<identifier of your API> to it. If the API has encryption switched on (Token Settings → JSON \
             Web Encryption), switch it off"
        }
        Some(Provider::Cognito) => {
            "it is a refresh token of Amazon Cognito: send the access token of the same response"
        }
        _ => {
            "it is encrypted for its recipient, so that hawkgate cannot read it: have the provider issue signed \
             tokens (JWS) for your API, or use kind = \"introspection\""
        }
    };
    vec![first.to_owned()]
}

/// What is wrong with a text that resembles a JWT.
pub(super) fn for_malformed(text: &str) -> String {
    let segments: Vec<_> = text.split('.').collect();
    let strange = text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c));
    match segments.as_slice() {
        _ if text.contains('…') || text.contains("...") => {
            "it was shortened when it was displayed: copy the whole token".to_owned()
        }
        _ if text.contains('~') => {
            "it is an SD-JWT (a verifiable credential), which is no access token".to_owned()
        }
        [_] | [_, _] => format!(
            "it has {} of the three segments of a JWT: the end was cut off when it was copied",
            segments.len()
        ),
        [_, _, _] if strange.is_some() => {
            let character = strange.unwrap_or_default();
            format!(
                "it has the character {character:?}, which base64url does not: it was encoded in another way, or \
                 changed when it was copied"
            )
        }
        [_, _, _] => "a segment is not base64url of a JSON object: part of it is missing, or was changed when it was \
             copied"
            .to_owned(),
        _ => format!("it has {} segments; a JWT has three", segments.len()),
    }
}

fn for_kind(token: &Decoded) -> Vec<String> {
    let text = match token.kind {
        Kind::IdToken => return for_id_token(token),
        Kind::RefreshToken => {
            "a refresh token is for the provider's token endpoint only: redeem it there, and send the access token"
        }
        Kind::LogoutToken => {
            "a logout token is sent by the provider to a session's backchannel-logout endpoint, not by a caller"
        }
        Kind::DpopProof => {
            "a DPoP proof accompanies an access token that is bound to a key; hawkgate takes bearer tokens only"
        }
        Kind::ClientAssertion => {
            "a client assertion is for the provider's token endpoint only: exchange it there, and send the access \
             token"
        }
        Kind::Unsigned => {
            "it has no signature (alg none), so anybody can write one; hawkgate never accepts it"
        }
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}

fn for_id_token(token: &Decoded) -> Vec<String> {
    let general = "an ID token tells a client who signed in. It is not for APIs, and hawkgate refuses it: send the access \
         token";
    let own = match token.provider {
        Some(Provider::Okta) => {
            "ask a custom authorization server (https://<domain>/oauth2/default) for a scope of your API, and send \
             access_token of the response"
        }
        Some(Provider::Entra | Provider::AdFs) => {
            "request a scope of your API (scope=api://<application id>/.default; AD FS: resource=), and send \
             access_token of the response"
        }
        Some(Provider::Auth0) => {
            "add audience=<identifier of your API> to the authorize request, and send access_token of the response"
        }
        Some(Provider::Keycloak) => {
            "send access_token of the same response; an audience mapper puts your API into its aud"
        }
        Some(Provider::Google) => {
            "Google signs no access tokens for other APIs. A program with a service account sends an ID token for your \
             audience, which profile workload accepts: gcloud auth print-identity-token \
             --audiences=https://hawkgate.example.com. For people use another provider in front of Google, or a \
             [[session]]"
        }
        Some(Provider::GitLab) => "a CI job gets a token for your audience by id_tokens:",
        _ => {
            "it is access_token in the same response. If that is opaque, name your API in the request: audience=, resource= \
             or a scope of it"
        }
    };
    vec![general.to_owned(), own.to_owned()]
}

fn for_header(token: &Decoded) -> Vec<String> {
    let mut advice = Vec::new();
    let algorithm = token.header_text("alg");
    let is_in = |list: &[Algorithm]| list.iter().any(|known| known.name() == algorithm);
    if is_in(Algorithm::HMAC) {
        advice.push(format!(
            "it is signed with a secret ({algorithm}): anyone who can verify such tokens can also forge them. Prefer \
             RS256 or ES256 at the provider; otherwise use kind = \"shared-secret\""
        ));
    } else if token.kind != Kind::Unsigned && !is_in(Algorithm::ALL) {
        advice.push(format!(
            "its algorithm ({algorithm:?}) is not supported: have the provider sign with RS256 or ES256"
        ));
    }
    if token.header.contains_key("crit") {
        let text = "its header names critical extensions (crit), and hawkgate implements none";
        advice.push(text.to_owned());
    }
    advice
}

fn for_audience(token: &Decoded) -> Option<String> {
    let audiences: Vec<_> = token
        .audiences()
        .into_iter()
        .filter_map(|a| a.as_str())
        .collect();
    let all_of_the_provider = !audiences.is_empty()
        && audiences
            .iter()
            .all(|audience| is_of_the_provider(token, audience));
    let is_graph = audiences
        .iter()
        .any(|audience| GRAPH.contains(&audience.trim_end_matches('/')));
    let text = match token.provider {
        Some(Provider::Cognito) => return None,
        Some(Provider::Entra) if is_graph || token.header.contains_key("nonce") => {
            "it is for Microsoft Graph, and only Graph can verify its signature. Request a scope of your own API: \
             scope=api://<application id>/.default"
        }
        Some(Provider::Okta) if all_of_the_provider => {
            "it is from Okta's org server, which publishes no keys for its access tokens: they are for Okta's own APIs. \
             Use a custom authorization server: https://<domain>/oauth2/default"
        }
        Some(Provider::Keycloak) if all_of_the_provider || audiences.is_empty() => {
            "its audience is not your API: add an audience mapper to the client or one of its scopes \
             (docs/guides/keycloak.md)"
        }
        Some(Provider::Auth0) if all_of_the_provider => {
            "it is for Auth0's own API: request audience=<identifier of your API>"
        }
        Some(Provider::Kubernetes) if all_of_the_provider || audiences.is_empty() => {
            "it is for the API server, and anyone who has it can act there as this account. Request one for your own \
             audience: kubectl create token ACCOUNT --audience https://hawkgate.example.com, or a projected volume"
        }
        Some(Provider::GitHubActions) if all_of_the_provider => {
            "its audience is GitHub's default. Request your own: $ACTIONS_ID_TOKEN_REQUEST_URL&audience=…"
        }
        _ if audiences.is_empty() => {
            "it has no audience (aud), so nothing says which API it is for, and hawkgate refuses it: have the provider \
             name your API"
        }
        _ if audiences.len() > 1 => {
            "it has several audiences: keep the one that stands for your API in audiences"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn for_times(token: &Decoded, now: UnixMillis) -> Option<String> {
    let Some(exp) = token.claim("exp").and_then(seconds) else {
        return Some(
            "it never expires (no exp), and hawkgate refuses it: ask for one that does".to_owned(),
        );
    };
    let ago = now.as_secs().saturating_sub(exp);
    (ago >= 0).then(|| {
        format!(
            "it expired {} ago: get a new one",
            duration(ago.unsigned_abs())
        )
    })
}

/// What to know about a provider's tokens.
fn for_provider(token: &Decoded) -> Option<&'static str> {
    Some(match token.provider {
        Some(Provider::Dex) => {
            "Dex's access tokens and ID tokens have the same claims, so nothing tells them apart: profile workload \
             accepts both, from the subjects that you list"
        }
        Some(Provider::Authentik) if profile(token) == "workload" => {
            "Authentik's access tokens look like ID tokens: profile workload accepts both, from the subjects that you \
             list, which fits service accounts. For people use kind = \"introspection\""
        }
        Some(Provider::GitHubActions) => {
            "anyone can get a token of this issuer: keep owner and repository in subjects"
        }
        Some(Provider::GitLab) if token.claim_text("iss") == "https://gitlab.com" => {
            "anyone can get a token of this issuer: keep group and project in subjects"
        }
        Some(Provider::Google) => {
            "anyone can get a token of this issuer for any audience: keep to the subjects of your service accounts"
        }
        _ => return None,
    })
}
