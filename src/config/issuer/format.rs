//! How an issuer's access tokens are marked, and the names of their claims: the keys that a `profile`
//! stands for.

// Fields are called like the keys.
#![allow(clippy::struct_field_names)]

use toml::de::DeValue;

use super::{Field, List, Reader, refuse_empty};
use crate::config::diagnostic::{Location, quoted};
use crate::config::reader::{Shape, Value, section};
use crate::config::value::text;
use crate::token::settings::{Profile, TokenFormat};

section! {
    /// The claims of an issuer's tokens.
    pub(in crate::config) struct ClaimNames {
        /// Claims of which the first that a token has contains its scopes: a string, separated by spaces, or
        /// an array.
        scope_claims: List<String> = [default "['scope', 'scp']"],
        /// Claims of which the first that a token has must contain one of `audiences`; when left out, what
        /// the profile says: `["aud"]`, and `["client_id"]` with profile `cognito`. If a token has `aud`,
        /// that is checked in any case.
        audience_claims: List<String> = [optional],
        /// Claims that name the client; those that a token has must be equal. When left out, what the
        /// profile says: `["client_id", "azp"]`, `["cid", "client_id", "azp"]` with profile `okta`, and
        /// `["azp", "appid"]` with profile `entra`.
        client_claims: List<String> = [optional],
    }
}

/// A value of `typ`: a media type, with or without `application/`, or empty.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct TokenType(String);

/// Types of tokens that are not access tokens: OpenID Connect Back-Channel Logout 1.0 §2.4, RFC 8417
/// §2.3, RFC 9449 §4.2, RFC 9701 §5, RFC 9101 §10.8.
const OTHER_TYPES: [&str; 6] = [
    "logout+jwt",
    "secevent+jwt",
    "dpop+jwt",
    "token-introspection+jwt",
    "oauth-authz-req+jwt",
    "id_token+jwt",
];

impl Value for TokenType {
    const SHAPE: Shape = Shape::TokenType;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        const PREFIX: &str = "application/";
        let text = text(reader, at, value, "\"at+jwt\"")?;
        let lower = text.to_ascii_lowercase();
        let bare = lower.strip_prefix(PREFIX).unwrap_or(&lower);
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        if !bare.bytes().all(is_token) || (bare.is_empty() && !text.is_empty()) {
            let problem = format!("{} is not a value of `typ`", quoted(text));
            let remedy = "write what the tokens' header has, such as \"at+jwt\" or \"JWT\", or \"\" for tokens without `typ`";
            reader.error(at, problem, remedy);
            return None;
        }
        if OTHER_TYPES.contains(&bare) {
            let problem = format!("{} is not the type of access tokens", quoted(text));
            reader.error(at, problem, "remove it");
            return None;
        }
        // In the case of the file, without the prefix.
        let start = text.len().checked_sub(bare.len())?;
        text.get(start..).map(|text| Self(text.to_owned()))
    }
}

/// Claims with a meaning of their own (RFC 7519 §4.1), which is none of these.
const RESERVED: [&str; 5] = ["iss", "exp", "nbf", "iat", "jti"];

impl ClaimNames {
    /// The format of the tokens of an issuer with this profile, whose keys these override.
    pub(super) fn resolve(
        self,
        reader: &mut Reader<'_>,
        profile: Profile,
        token_types: Option<Field<List<TokenType>>>,
    ) -> Option<TokenFormat> {
        check_names(reader, &self.scope_claims, "scopes");
        check_names(reader, &self.audience_claims, "audiences");
        check_names(reader, &self.client_claims, "clients");
        let mut format = profile.format();
        if let Some(types) = token_types {
            let remedy = "list values of `typ`, or leave the key out for those of the profile";
            refuse_empty(reader, &types, remedy);
            if let Some(types) = types.optional()? {
                let types = types.into_values().into_iter().map(|TokenType(typ)| typ);
                format.token_types = Some(types.collect());
            }
        }
        format.scope_claims = self.scope_claims.value?.into_values();
        if let Some(names) = self.audience_claims.optional()? {
            format.audience_claims = names.into_values();
        }
        if let Some(names) = self.client_claims.optional()? {
            format.client_claims = names.into_values();
        }
        Some(format)
    }
}

fn check_names(reader: &mut Reader<'_>, field: &Field<List<String>>, content: &str) {
    let Some(names) = &field.value else { return };
    if names.is_empty() {
        let problem = format!("is empty: no claim would be read for a token's {content}");
        let remedy = "list names of claims, or leave the key out for those of the profile";
        reader.error(&field.at, problem, remedy);
    }
    for name in &names.items {
        if RESERVED.contains(&name.value.as_str()) {
            let problem = format!("{} never contains {content}", quoted(&name.value));
            let remedy = format!("name the claim that contains the tokens' {content}");
            reader.error(&name.at, problem, remedy);
        }
    }
}
