//! Opaque tokens that are recognised by how they begin, as their issuers document for secret scanning.

use super::kind::Kind;

/// An opaque token.
pub(super) struct Opaque {
    /// What it is, with an article.
    pub(super) what: &'static str,
    pub(super) kind: Kind,
    /// What to do instead; the general advice if empty.
    pub(super) advice: &'static str,
}

/// Prefixes with what they mean. The first that matches counts.
const KNOWN: &[(&str, Opaque)] = &[
    known("ghr_", "a GitHub refresh token", Kind::RefreshToken, GITHUB),
    known(
        "github_pat_",
        "a GitHub personal access token",
        Kind::Opaque,
        GITHUB,
    ),
    known(
        "ghp_",
        "a GitHub personal access token",
        Kind::Opaque,
        GITHUB,
    ),
    known("gho_", "a GitHub OAuth access token", Kind::Opaque, GITHUB),
    known(
        "ghu_",
        "a GitHub user-to-server token",
        Kind::Opaque,
        GITHUB,
    ),
    known(
        "ghs_",
        "a GitHub installation token, such as GITHUB_TOKEN",
        Kind::Opaque,
        GITHUB,
    ),
    known(
        "glpat-",
        "a GitLab personal access token",
        Kind::Opaque,
        GITLAB,
    ),
    known(
        "glcbt-",
        "a GitLab job token (CI_JOB_TOKEN)",
        Kind::Opaque,
        GITLAB,
    ),
    known("gldt-", "a GitLab deploy token", Kind::Opaque, GITLAB),
    known(
        "gloas-",
        "a GitLab OAuth application secret",
        Kind::NotAToken,
        GITLAB,
    ),
    known("ya29.", "a Google access token", Kind::Opaque, GOOGLE),
    known("1//", "a Google refresh token", Kind::RefreshToken, GOOGLE),
    known(
        "EwA",
        "an access token of a personal Microsoft account",
        Kind::Opaque,
        MICROSOFT,
    ),
    known(
        "EwB",
        "an access token of a personal Microsoft account",
        Kind::Opaque,
        MICROSOFT,
    ),
    known(
        "0.A",
        "a Microsoft Entra refresh token or code",
        Kind::RefreshToken,
        ENTRA_REFRESH,
    ),
    known(
        "1.A",
        "a Microsoft Entra refresh token or code",
        Kind::RefreshToken,
        ENTRA_REFRESH,
    ),
    known(
        "v1.M",
        "an Auth0 refresh token",
        Kind::RefreshToken,
        REFRESH,
    ),
    known(
        "sha256~",
        "an OpenShift OAuth token",
        Kind::Opaque,
        OPENSHIFT,
    ),
    known(
        "k8s-aws-v1.",
        "a token of the AWS IAM authenticator for Kubernetes",
        Kind::Opaque,
        OPENSHIFT,
    ),
    known("hvs.", "a HashiCorp Vault token", Kind::Opaque, VAULT),
    known("hvb.", "a HashiCorp Vault batch token", Kind::Opaque, VAULT),
    known("xoxb-", "a Slack token", Kind::Opaque, API_KEY),
    known("xoxp-", "a Slack token", Kind::Opaque, API_KEY),
    known("npm_", "an npm token", Kind::Opaque, API_KEY),
    known("pypi-", "a PyPI token", Kind::Opaque, API_KEY),
    known("sk-", "an API key", Kind::Opaque, API_KEY),
    known("AKIA", "an AWS access key id", Kind::NotAToken, API_KEY),
    known("v2.local.", PASETO, Kind::Opaque, PASETO_ADVICE),
    known("v3.local.", PASETO, Kind::Opaque, PASETO_ADVICE),
    known("v4.local.", PASETO, Kind::Opaque, PASETO_ADVICE),
    known("v2.public.", PASETO, Kind::Opaque, PASETO_ADVICE),
    known("v3.public.", PASETO, Kind::Opaque, PASETO_ADVICE),
    known("v4.public.", PASETO, Kind::Opaque, PASETO_ADVICE),
];

const GITHUB: &str = "GitHub's own tokens are for GitHub's API, and nobody else can verify them. In GitHub Actions ask for an \
     OIDC token with hawkgate's audience (permissions: id-token: write); docs/guides/ci.md";
const GITLAB: &str = "GitLab's own tokens are for GitLab's API. In a CI job ask for an ID token with hawkgate's audience \
     (id_tokens:); docs/guides/ci.md";
const GOOGLE: &str = "Google's access tokens are for Google's APIs, and are opaque. A program with a service account sends an \
     ID token for hawkgate's audience: gcloud auth print-identity-token --audiences=https://hawkgate.example.com; \
     docs/guides/google.md";
const MICROSOFT: &str = "it is for Microsoft's own APIs. Ask for a scope of your API (api://<application id>/.default) with a \
     work or school account; docs/guides/entra.md";
const ENTRA_REFRESH: &str = "it is for Entra's token endpoint only. Redeem it there with the scope of your API \
     (api://<application id>/.default) and send the access token; docs/guides/entra.md";
const REFRESH: &str =
    "it is for the provider's token endpoint only: redeem it there, and send the access token";
const OPENSHIFT: &str = "it is for the cluster's API server. Ask for a service account's token with hawkgate's audience: \
     kubectl create token ACCOUNT --audience https://hawkgate.example.com; docs/guides/kubernetes-identities.md";
const VAULT: &str = "it is for Vault. Vault's identity secrets engine issues JWTs for an audience (identity/oidc/token)";
const API_KEY: &str = "it is a key of that service, and hawkgate cannot verify it. Send an access token of your identity \
     provider; hawkgate can add the key on the way upstream, so that callers need not have it";
const PASETO: &str = "a PASETO";
const PASETO_ADVICE: &str = "hawkgate takes JWTs: configure the issuer to sign these";

const fn known(
    prefix: &'static str,
    what: &'static str,
    kind: Kind,
    advice: &'static str,
) -> (&'static str, Opaque) {
    (prefix, Opaque { what, kind, advice })
}

/// A UUID: what many servers use as tokens.
const UUID: Opaque = Opaque {
    what: "a UUID, which some servers use as opaque tokens",
    kind: Kind::Opaque,
    advice: "",
};

const UNKNOWN: Opaque = Opaque {
    what: "an opaque token: not a JWT, so only its issuer knows what it means",
    kind: Kind::Opaque,
    advice: "",
};

/// What this word, which is not a JWT, is.
pub(super) fn recognise(word: &str) -> &'static Opaque {
    let known = KNOWN.iter().find(|(prefix, _)| word.starts_with(prefix));
    match known {
        Some((_, opaque)) => opaque,
        None if is_uuid(word) => &UUID,
        None => &UNKNOWN,
    }
}

fn is_uuid(word: &str) -> bool {
    let groups = word.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12]) && word.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}
