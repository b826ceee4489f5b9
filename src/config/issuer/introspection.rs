//! Issuers of kind `introspection`.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::format::ClaimNames;
use super::{check_audiences, check_subjects, refuse_empty};
use crate::config::diagnostic::quoted;
use crate::config::oauth_client::ClientKeys;
use crate::config::oauth_source::check_endpoint;
use crate::config::reader::{Reader, Section, Table, section};
use crate::config::resolved::Introspection;
use crate::config::units::show_duration;
use crate::config::value::List;
use crate::remote::settings::IntrospectionEndpoint;
use crate::token::BearerToken;
use crate::token::settings::{IntrospectionIssuer, Profile};

section! {
    /// Kind `introspection`: hawkgate introspects each token at the issuer (RFC 7662), with a client of its
    /// own.
    pub(in crate::config) struct IntrospectionKeys {
        /// The exact `iss` of its tokens, byte by byte; checked if a response has one.
        url: String = [required],
        /// The introspection endpoint.
        introspection_url: Url = [required],
        /// PEM file with the only CAs trusted for the endpoint; the platform's when left out.
        ca: PathBuf = [optional],
        /// The prefix of its tokens ("gho_"); needed if a route lists several issuers of opaque tokens.
        token_prefix: String = [optional],
        /// Accepted values of `aud`, or of `audience_claims`; a token must have at least one of them.
        audiences: List<String> = [required],
        /// Tolerated clock skew; at most 5m.
        leeway: Duration = [default "'30s'"],
        /// Accepted clients, by `client_claims`; any when left out.
        clients: List<String> = [optional],
        /// Accepted values of `sub`, in which each `*` matches any text; any when left out.
        subjects: List<String> = [optional],
        /// How long a response is cached, and so how long a revoked token keeps working; at most 60s.
        verified_max_age: Duration = [default "'60s'"],
    }
}

/// The upper limit of `verified_max_age` (`docs/design/tokens.md`).
const MAX_RESPONSE_AGE: Duration = Duration::from_mins(1);

impl IntrospectionKeys {
    pub(super) fn resolve(
        self,
        reader: &mut Reader<'_>,
        table: &Table<'_>,
    ) -> Option<Introspection> {
        let endpoint = self.introspection_url.value.as_ref();
        let client = ClientKeys::read(reader, table).resolve(reader, endpoint);
        check_endpoint(reader, &self.introspection_url);
        check_audiences(reader, &self.audiences);
        check_subjects(reader, &self.url, None, &self.subjects);
        refuse_empty(
            reader,
            &self.clients,
            "list clients, or leave the key out to accept any",
        );
        let zero = Duration::ZERO;
        reader.check_range(&self.leeway, zero, Duration::from_mins(5), show_duration);
        reader.check_range(
            &self.verified_max_age,
            zero,
            MAX_RESPONSE_AGE,
            show_duration,
        );
        if let Some(ca) = &self.ca.value {
            reader.check_cas(&self.ca.at, ca);
        }
        if let Some(prefix) = &self.token_prefix.value
            && BearerToken::new(prefix).is_err()
        {
            let problem = format!(
                "{} has characters that cannot occur in a bearer token",
                quoted(prefix)
            );
            reader.error(
                &self.token_prefix.at,
                problem,
                "write the prefix that the issuer's tokens start with",
            );
        }
        // An introspected token has no profile.
        let names = ClaimNames::read(reader, table);
        let format = names.resolve(reader, Profile::Rfc9068, None);
        let endpoint = IntrospectionEndpoint {
            url: self.introspection_url.value?,
            client: client?,
            ca: self.ca.optional()?,
        };
        let issuer = IntrospectionIssuer {
            url: self.url.value?,
            token_prefix: self.token_prefix.optional()?,
            audiences: self.audiences.value?.into_values(),
            format: format?,
            leeway: self.leeway.value?,
            clients: self.clients.optional()?.map(List::into_values),
            subjects: self.subjects.optional()?.map(List::into_values),
            verified_max_age: self.verified_max_age.value?,
        };
        Some(Introspection { issuer, endpoint })
    }
}
