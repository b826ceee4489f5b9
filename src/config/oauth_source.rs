//! The keys of sources that use an OAuth2 token endpoint.

use url::Url;

use super::diagnostic::quoted;
use super::http_url::require_https;
use super::oauth_client::ClientKeys;
use super::reader::{Field, Reader, Section, Table, section};
use super::resolved::SourceKind;
use super::value::{List, Nested};
use crate::credential::Inject;

section! {
    /// Kind `client-credentials`: a token issued to hawkgate's own OAuth2 client, the same for every
    /// caller.
    pub(super) struct ClientCredentials {
        /// The token endpoint.
        token_url: Url = [required],
        /// The `audience` parameter, for servers that use it (Auth0).
        audience: String = [optional],
        /// The `resource` parameter of RFC 8707: an absolute URI.
        resource: String = [optional],
        /// The scopes to request; the server's default when empty. Rules may narrow them.
        scopes: List<String> = [default "[]"],
        /// The `organization` parameter, for Auth0.
        organization: String = [optional],
    }
}

section! {
    /// Kind `token-exchange`: exchanges the caller's token for another (RFC 8693).
    pub(super) struct TokenExchange {
        /// The token endpoint.
        token_url: Url = [required],
        /// The `audience` parameter: the new token's audience, by a name known to the server.
        audience: String = [optional],
        /// The `resource` parameter (RFC 8707): the new token's audience, as an absolute URI.
        resource: String = [optional],
        /// The scopes to request; the server's default when empty. Rules may narrow them.
        scopes: List<String> = [default "[]"],
        /// The type of the new token, a URI; the server's default when left out.
        requested_token_type: String = [optional],
        /// The type of callers' tokens, a URI.
        subject_token_type: String = [default "'urn:ietf:params:oauth:token-type:access_token'"],
    }
}

section! {
    /// The header that carries a bearer credential upstream. Copies sent by the caller are removed.
    pub(super) struct InjectKeys {
        /// The header's name.
        header: String = [default "'Authorization'"],
        /// The header's value; when left out, `Bearer {token}` in Authorization, elsewhere `{token}`.
        format: String = [optional],
    }
}

const CLEARTEXT_SECRETS: &str = "tokens and hawkgate's own secret would be sent in cleartext";

impl ClientCredentials {
    pub(super) fn resolve(self, reader: &mut Reader<'_>, table: &Table<'_>) -> Option<SourceKind> {
        let client = ClientKeys::read(reader, table).resolve(reader, self.token_url.value.as_ref());
        check_endpoint(reader, &self.token_url);
        check_uri(reader, &self.resource);
        check_scopes(reader, &self.scopes);
        Some(SourceKind::ClientCredentials {
            token_url: self.token_url.value?,
            client: client?,
            audience: self.audience.optional()?,
            resource: self.resource.optional()?,
            scopes: self.scopes.value?.into_values(),
            organization: self.organization.optional()?,
        })
    }
}

impl TokenExchange {
    pub(super) fn resolve(self, reader: &mut Reader<'_>, table: &Table<'_>) -> Option<SourceKind> {
        let client = ClientKeys::read(reader, table).resolve(reader, self.token_url.value.as_ref());
        check_endpoint(reader, &self.token_url);
        for uri in [
            &self.resource,
            &self.requested_token_type,
            &self.subject_token_type,
        ] {
            check_uri(reader, uri);
        }
        check_scopes(reader, &self.scopes);
        Some(SourceKind::TokenExchange {
            token_url: self.token_url.value?,
            client: client?,
            audience: self.audience.optional()?,
            resource: self.resource.optional()?,
            scopes: self.scopes.value?.into_values(),
            requested_token_type: self.requested_token_type.optional()?,
            subject_token_type: self.subject_token_type.value?,
        })
    }
}

/// Refuses plain http to other machines, because it would expose secrets.
pub(super) fn check_endpoint(reader: &mut Reader<'_>, url: &Field<Url>) {
    if let Some(location) = &url.value {
        require_https(reader, &url.at, location, CLEARTEXT_SECRETS);
    }
}

/// Requires an absolute URI without a fragment (RFC 8707 §2, RFC 8693 §3).
pub(super) fn check_uri(reader: &mut Reader<'_>, field: &Field<String>) {
    let Some(text) = &field.value else { return };
    let absolute = Url::parse(text).is_ok_and(|uri| uri.fragment().is_none());
    if !absolute {
        let problem = format!("{} is not an absolute URI without a fragment", quoted(text));
        let remedy = "write it with its scheme: \"https://…\" or \"urn:…\"";
        reader.error(&field.at, problem, remedy);
    }
}

/// Requires each element to be one scope-token (RFC 6749 §3.3).
pub(super) fn check_scopes(reader: &mut Reader<'_>, scopes: &Field<List<String>>) {
    let fits = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    for scope in scopes.value.iter().flat_map(|list| &list.items) {
        if !scope.value.bytes().all(fits) {
            let problem = format!("{} is not an OAuth2 scope", quoted(&scope.value));
            let remedy =
                "write each scope as a separate string of printable ASCII without spaces, \" or \\";
            reader.error(&scope.at, problem, remedy);
        }
    }
}

/// Resolves `inject`, for sources of bearer tokens. Returns `Some(None)` if it is absent.
#[allow(clippy::option_option)]
pub(super) fn resolve_inject(
    reader: &mut Reader<'_>,
    field: Field<Nested<InjectKeys>>,
) -> Option<Option<Inject>> {
    let Some(Nested(keys)) = field.optional()? else {
        return Some(None);
    };
    let header = keys.header.value?;
    if let Err(problem) = Inject::header_named(&header) {
        let remedy = "use another header, such as \"Authorization\" or \"X-Api-Token\"";
        let problem = format!("{} {problem}", quoted(&header));
        reader.error(&keys.header.at, problem, remedy);
        return None;
    }
    let default_format = if header.eq_ignore_ascii_case("authorization") {
        "Bearer {token}"
    } else {
        "{token}"
    };
    let at = keys.format.at.clone();
    let format = keys.format.optional()?;
    let format = format.as_deref().unwrap_or(default_format);
    if let Err(problem) = Inject::check_format(format) {
        let remedy = "write it like \"Bearer {token}\"";
        reader.error(&at, problem.to_string(), remedy);
        return None;
    }
    Inject::new(&header, format).ok().map(Some)
}
