//! Issuers of kind `shared-secret`.

use std::time::Duration;

use super::format::{ClaimNames, TokenType};
use super::{check_audiences, check_subjects, refuse_empty};
use crate::config::diagnostic::quoted;
use crate::config::reader::{Reader, section};
use crate::config::units::show_duration;
use crate::config::value::{Choice, List};
use crate::secret::SecretRef;
use crate::token::decode_shared_secret;
use crate::token::settings::{Algorithm, Profile, SecretEncoding, SharedSecretIssuer};

section! {
    /// Kind `shared-secret`: anyone who knows the secret can issue tokens, so use this kind only for
    /// issuers that offer no other. It cannot be combined with public keys.
    pub(in crate::config) struct SharedSecret {
        /// The exact `iss` of its tokens, byte by byte.
        url: String = [required],
        /// The secret, at least as long as the longest hash among `algorithms` (32, 48, 64 bytes);
        /// reread every 10s.
        secret: SecretRef = [required],
        /// `text`: the key is the secret's bytes. `base64`: the key is base64-decoded from them, in either
        /// alphabet.
        secret_encoding: SecretEncoding = [default "'text'"],
        /// Accepted values of `aud`, or of `audience_claims`; a token must have at least one of them.
        audiences: List<String> = [required],
        /// Accepted signature algorithms: HS256, HS384, HS512.
        algorithms: List<HmacAlgorithm> = [default "['HS256']"],
        /// As for kind `oidc`.
        profile: Profile = [default "'rfc9068'"],
        /// As for kind `oidc`.
        token_types: List<TokenType> = [optional],
        /// Tolerated clock skew; at most 5m.
        leeway: Duration = [default "'30s'"],
        /// Accepted clients, by `client_claims`; any when left out.
        clients: List<String> = [optional],
        /// Accepted values of `sub`, in which each `*` matches any text; any when left out.
        subjects: List<String> = [optional],
        /// Maximum time for which a verified token is cached; at most 24h.
        verified_max_age: Duration = [default "'5m'"],
    }
}

impl Choice for SecretEncoding {
    const NAMES: &'static [&'static str] = &["text", "base64"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "base64" => Some(Self::Base64),
            _ => None,
        }
    }

    fn explain_refusal(name: &str) -> Option<(String, String)> {
        (name == "base64url").then(|| {
            let problem = "\"base64url\" is not a valid value".to_owned();
            (
                problem,
                "write \"base64\", which accepts both alphabets".to_owned(),
            )
        })
    }
}

/// An HMAC algorithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::config) struct HmacAlgorithm(Algorithm);

impl Choice for HmacAlgorithm {
    const NAMES: &'static [&'static str] = &[
        Algorithm::HMAC[0].name(),
        Algorithm::HMAC[1].name(),
        Algorithm::HMAC[2].name(),
    ];

    fn from_name(name: &str) -> Option<Self> {
        let found = Algorithm::HMAC.iter().find(|a| a.name() == name);
        found.copied().map(Self)
    }

    fn explain_refusal(name: &str) -> Option<(String, String)> {
        let problem = if name.eq_ignore_ascii_case("none") {
            "would accept unsigned tokens"
        } else if Algorithm::from_name(name).is_some() {
            "needs public keys, which cannot be combined with a secret"
        } else {
            return None;
        };
        let remedy = "write \"HS256\", or use kind = \"oidc\"".to_owned();
        Some((format!("{} {problem}", quoted(name)), remedy))
    }
}

impl SharedSecret {
    pub(super) fn resolve(
        self,
        reader: &mut Reader<'_>,
        names: ClaimNames,
    ) -> Option<SharedSecretIssuer> {
        check_audiences(reader, &self.audiences);
        check_subjects(reader, &self.url, self.profile.value, &self.subjects);
        refuse_empty(
            reader,
            &self.clients,
            "list clients, or leave the key out to accept any",
        );
        refuse_empty(
            reader,
            &self.algorithms,
            "list algorithms, or leave the key out for HS256",
        );
        let (zero, day) = (Duration::ZERO, Duration::from_hours(24));
        reader.check_range(&self.leeway, zero, Duration::from_mins(5), show_duration);
        reader.check_range(&self.verified_max_age, zero, day, show_duration);
        self.check_secret(reader);
        // Even if the profile is invalid, so that all errors are reported.
        let profile = self.profile.value.unwrap_or(Profile::Rfc9068);
        let format = names.resolve(reader, profile, Some(self.token_types));
        Some(SharedSecretIssuer {
            url: self.url.value?,
            secret: self.secret.value?,
            encoding: self.secret_encoding.value?,
            audiences: self.audiences.value?.into_values(),
            algorithms: self
                .algorithms
                .value?
                .into_values()
                .iter()
                .map(|a| a.0)
                .collect(),
            profile: self.profile.value?,
            format: format?,
            leeway: self.leeway.value?,
            clients: self.clients.optional()?.map(List::into_values),
            subjects: self.subjects.optional()?.map(List::into_values),
            verified_max_age: self.verified_max_age.value?,
        })
    }

    fn check_secret(&self, reader: &mut Reader<'_>) {
        let (Some(reference), Some(encoding), Some(list)) = (
            &self.secret.value,
            self.secret_encoding.value,
            &self.algorithms.value,
        ) else {
            return;
        };
        if !reader.reads_files() {
            return;
        }
        // An unreadable secret has already been reported.
        let Ok(secret) = reference.read() else { return };
        let algorithms: Vec<_> = list.items.iter().map(|item| item.value.0).collect();
        if let Err(problem) = decode_shared_secret(secret.expose(), encoding, &algorithms) {
            let remedy = "use a longer secret, for example from `openssl rand -hex 64`";
            reader.error(&self.secret.at, problem.to_string(), remedy);
        }
    }
}
