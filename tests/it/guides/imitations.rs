//! Tokens with the claims of each provider's documentation. Values that name somebody are made up;
//! times and signatures are added by the test.

use serde_json::{Value, json};

use crate::support::tokens::with;

/// A token without times and without what signing adds.
pub(super) struct Token {
    /// What it is, for messages.
    pub(super) what: &'static str,
    /// The `kind` that `hawkgate explain` names.
    pub(super) kind: &'static str,
    pub(super) header: Value,
    pub(super) claims: Value,
    /// Why it is refused; empty if it is accepted.
    pub(super) reason: &'static str,
}

/// A configuration of a guide, with tokens for it.
pub(super) struct Imitation {
    pub(super) page: &'static str,
    /// The name of the issuer on that page.
    pub(super) issuer: &'static str,
    pub(super) profile: &'static str,
    pub(super) provider: &'static str,
    pub(super) accepted: Vec<Token>,
    pub(super) refused: Vec<Token>,
}

fn access(what: &'static str, header: &Value, claims: Value) -> Token {
    Token {
        what,
        kind: "access_token",
        header: header.clone(),
        claims,
        reason: "",
    }
}

fn id(what: &'static str, header: &Value, claims: Value) -> Token {
    Token {
        kind: "id_token",
        reason: "token_type",
        ..access(what, header, claims)
    }
}

fn workload(what: &'static str, header: &Value, claims: Value, reason: &'static str) -> Token {
    Token {
        kind: "workload_token",
        reason,
        ..access(what, header, claims)
    }
}

pub(super) fn all() -> Vec<Imitation> {
    vec![
        okta(),
        entra_v2(),
        entra_v1(),
        adfs(),
        cognito(),
        keycloak(),
        google(),
        github(),
        gitlab(),
        kubernetes(),
    ]
}

/// <https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/>
fn okta() -> Imitation {
    let header = json!({});
    let user = json!({
        "ver": 1,
        "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
        "iss": "https://example.okta.com/oauth2/default",
        "aud": "api://default",
        "sub": "jane.doe@example.com",
        "cid": "0oanmdP1fcyvdVO11AL7",
        "uid": "00ujmkLgagxeRrAg20g3",
        "scp": ["openid", "taskcluster"],
        "auth_time": 1_311_280_970,
    });
    let program = json!({
        "sub": "0oanmdP1fcyvdVO11AL7", "uid": null, "auth_time": null, "scp": ["taskcluster"],
    });
    let id_token = json!({
        "ver": 1,
        "sub": "00uid4BxXw6I6TV4m0g3",
        "iss": "https://example.okta.com/oauth2/default",
        "aud": "api://default",
        "amr": ["pwd"],
        "jti": "ID.4eAWJOCMB3SX8XewDfVR",
        "auth_time": 1_311_280_970,
        "at_hash": "cpqKfdQA5eH891Ff5oJr_Q",
        "idp": "00ok1u7AsAkrwdZL3z0g3",
        "name": "Jane Doe",
        "preferred_username": "jane.doe@example.com",
        "scope": "taskcluster",
    });
    let without_hash = json!({ "at_hash": null, "nonce": null, "scp": ["taskcluster"] });
    Imitation {
        page: "docs/guides/okta.md",
        issuer: "okta",
        profile: "okta",
        provider: "Okta",
        accepted: vec![
            access("a user's token", &header, user.clone()),
            access("a program's token", &header, with(&user, &program)),
        ],
        refused: vec![
            id("an ID token", &header, id_token.clone()),
            id(
                "an ID token of a code flow",
                &header,
                with(&id_token, &without_hash),
            ),
        ],
    }
}

const TENANT: &str = "aaaabbbb-0000-cccc-1111-dddd2222eeee";
const APPLICATION: &str = "11112222-bbbb-3333-cccc-4444dddd5555";

/// <https://learn.microsoft.com/en-us/entra/identity-platform/access-tokens>,
/// <https://learn.microsoft.com/en-us/entra/identity-platform/id-tokens>
fn entra_v2() -> Imitation {
    let header = json!({ "typ": "JWT" });
    let user = json!({
        "aud": APPLICATION,
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "aio": "AXQAi/8IAAAAtAaZLo3ChMif6KOnttRB7eBq4/DccQzjcJGxPYy",
        "azp": "00001111-aaaa-2222-bbbb-3333cccc4444",
        "azpacr": "0",
        "name": "Jane Doe",
        "oid": "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb",
        "preferred_username": "jane.doe@example.com",
        "rh": "I",
        "scp": "access_as_user",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
        "tid": TENANT,
        "uti": "fqiBqXLPj0eQa82S-IYFAA",
        "ver": "2.0",
    });
    let program = json!({
        "azp": APPLICATION, "azpacr": "1", "scp": null, "roles": ["Tasks.Create"], "name": null,
        "preferred_username": null, "sub": "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb",
    });
    let id_token = json!({
        "ver": "2.0",
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "aud": APPLICATION,
        "name": "Jane Doe",
        "preferred_username": "jane.doe@example.com",
        "oid": "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb",
        "tid": TENANT,
        "nonce": "123523",
        "aio": "Df2UVXL1ix!lMCWMSOJBcFatzcGfvFGhjKv8q5g0x732dR5MB5BisvGQO7YWByjd8iQDLq!eGbIDakyp5mnOrcdqHeYSnltepQmRp6AIZ8jY",
    });
    Imitation {
        page: "docs/guides/entra.md",
        issuer: "entra",
        profile: "entra",
        provider: "Microsoft Entra",
        accepted: vec![
            access("a user's token", &header, user.clone()),
            access(
                "of a program for its own API",
                &header,
                with(&user, &program),
            ),
        ],
        refused: vec![
            id("an ID token", &header, id_token.clone()),
            id(
                "an ID token of a code flow",
                &header,
                with(&id_token, &json!({ "nonce": null })),
            ),
        ],
    }
}

/// As for version 2.
fn entra_v1() -> Imitation {
    let header = json!({ "typ": "JWT", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY" });
    let audience = format!("api://{APPLICATION}");
    let issuer = format!("https://sts.windows.net/{TENANT}/");
    let user = json!({
        "aud": audience,
        "iss": issuer,
        "acr": "1",
        "aio": "AXQAi/8IAAAAtAaZLo3ChMif6KOnttRB7eBq4/DccQzjcJGxPYy",
        "amr": ["pwd"],
        "appid": "00001111-aaaa-2222-bbbb-3333cccc4444",
        "appidacr": "0",
        "ipaddr": "192.0.2.7",
        "name": "Jane Doe",
        "oid": "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb",
        "rh": "I",
        "scp": "access_as_user",
        "sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA",
        "tid": TENANT,
        "unique_name": "jane.doe@example.com",
        "uti": "fqiBqXLPj0eQa82S-IYFAA",
        "ver": "1.0",
    });
    let id_token = json!({
        "aud": audience,
        "iss": issuer,
        "amr": ["pwd"],
        "name": "Jane Doe",
        "nonce": "123523",
        "oid": "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb",
        "sub": "Z4n-q3QQ6lGVRPQAFIZ1LX0pj8dSfVCmSC3MRRCBSQA",
        "tid": TENANT,
        "unique_name": "jane.doe@example.com",
        "ver": "1.0",
    });
    Imitation {
        page: "docs/guides/entra.md",
        issuer: "entra-v1",
        profile: "entra",
        provider: "Microsoft Entra",
        accepted: vec![access("a user's token", &header, user)],
        refused: vec![id("an ID token", &header, id_token)],
    }
}

/// <https://learn.microsoft.com/en-us/windows-server/identity/ad-fs/overview/ad-fs-openid-connect-oauth-concepts>
fn adfs() -> Imitation {
    let header = json!({ "typ": "JWT", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY" });
    let user = json!({
        "aud": "https://hawkgate.example.com",
        "iss": "http://fs.example.com/adfs/services/trust",
        "sub": "jane.doe@example.com",
        "apptype": "Confidential",
        "appid": "00001111-aaaa-2222-bbbb-3333cccc4444",
        "authmethod": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
        "auth_time": "2026-11-20T19:10:09.000Z",
        "ver": "1.0",
        "scp": "openid access_as_user",
    });
    let id_token = json!({
        "aud": "https://hawkgate.example.com",
        "iss": "http://fs.example.com/adfs/services/trust",
        "sub": "CZTVGaBhLqtqZHAGiVHGDiR0CgGf7hQmcwrNdq6lUZE",
        "auth_time": 1_795_201_809,
        "upn": "jane.doe@example.com",
        "unique_name": "EXAMPLE\\jane",
        "nonce": "123523",
    });
    Imitation {
        page: "docs/guides/entra.md",
        issuer: "adfs",
        profile: "entra",
        provider: "AD FS",
        accepted: vec![access("a user's token", &header, user)],
        refused: vec![id("an ID token", &header, id_token)],
    }
}

/// <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html>,
/// <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html>
fn cognito() -> Imitation {
    let header = json!({});
    let user = json!({
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "cognito:groups": ["developers"],
        "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE1",
        "version": 2,
        "client_id": "5f3example0app1client2id",
        "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "event_id": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "token_use": "access",
        "scope": "phone openid taskcluster/use",
        "auth_time": 1_676_313_851,
        "jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "username": "jane",
        "nbf": null,
    });
    let program = json!({
        "sub": "5f3example0app1client2id", "cognito:groups": null, "origin_jti": null, "username": null,
        "event_id": null, "scope": "taskcluster/use",
    });
    let id_token = json!({
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "cognito:groups": ["developers"],
        "email_verified": true,
        "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE1",
        "cognito:username": "jane",
        "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "aud": "5f3example0app1client2id",
        "event_id": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "token_use": "id",
        "auth_time": 1_676_312_777,
        "jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "email": "jane.doe@example.com",
        "nbf": null,
    });
    // A pre-token-generation trigger can add claims.
    let with_client =
        json!({ "client_id": "5f3example0app1client2id", "scope": "taskcluster/use" });
    Imitation {
        page: "docs/guides/cognito.md",
        issuer: "cognito",
        profile: "cognito",
        provider: "Amazon Cognito",
        accepted: vec![
            access("a user's token", &header, user.clone()),
            access("a program's token", &header, with(&user, &program)),
        ],
        refused: vec![id(
            "an ID token with added claims",
            &header,
            with(&id_token, &with_client),
        )],
    }
}

/// The claims of Keycloak 26.7.3 (and of 23, in the case of `nonce`).
fn keycloak() -> Imitation {
    let header = json!({ "typ": "JWT" });
    let user = json!({
        "iss": "https://keycloak.example.com/realms/builds",
        "aud": ["hawkgate", "account"],
        "sub": "0c5e2a53-6a3b-4d4f-9b41-5e4f5cfb9f5e",
        "typ": "Bearer",
        "azp": "web",
        "sid": "8f4a0c1e-1111-2222-3333-444455556666",
        "acr": "1",
        "allowed-origins": ["https://app.example.com"],
        "realm_access": { "roles": ["offline_access", "default-roles-builds"] },
        "resource_access": { "account": { "roles": ["view-profile"] } },
        "scope": "openid email profile",
        "email_verified": true,
        "preferred_username": "jane",
        "jti": "onrtac:0c5e2a53",
    });
    let id_token = json!({
        "iss": "https://keycloak.example.com/realms/builds",
        "aud": "hawkgate",
        "sub": "0c5e2a53-6a3b-4d4f-9b41-5e4f5cfb9f5e",
        "typ": "ID",
        "azp": "hawkgate",
        "nonce": "n-0S6_WzA2Mj",
        "sid": "8f4a0c1e-1111-2222-3333-444455556666",
        "at_hash": "cpqKfdQA5eH891Ff5oJr_Q",
        "acr": "1",
        "preferred_username": "jane",
    });
    let plain = json!({ "nonce": null, "at_hash": null });
    let refresh = json!({
        "iss": "https://keycloak.example.com/realms/builds",
        "aud": "hawkgate",
        "sub": "0c5e2a53-6a3b-4d4f-9b41-5e4f5cfb9f5e",
        "typ": "Refresh",
        "azp": "web",
        "scope": "openid",
    });
    let refused = |what, kind, claims| Token {
        kind,
        ..id(what, &header, claims)
    };
    let client_in_aud = json!({ "aud": ["hawkgate", "web"] });
    Imitation {
        page: "docs/guides/keycloak.md",
        issuer: "keycloak",
        profile: "keycloak",
        provider: "Keycloak",
        accepted: vec![
            access("a user's token", &header, user.clone()),
            access("the client in aud", &header, with(&user, &client_in_aud)),
            access(
                "a nonce, before 24",
                &header,
                with(&user, &json!({ "nonce": "n-0S6_WzA2Mj" })),
            ),
        ],
        refused: vec![
            id("an ID token", &header, id_token.clone()),
            id(
                "an ID token of a code flow",
                &header,
                with(&id_token, &plain),
            ),
            refused("a refresh token", "refresh_token", refresh.clone()),
            refused(
                "an offline token",
                "refresh_token",
                with(&refresh, &json!({ "typ": "Offline" })),
            ),
        ],
    }
}

/// <https://docs.cloud.google.com/docs/authentication/token-types>
fn google() -> Imitation {
    let header = json!({ "typ": "JWT" });
    let account = json!({
        "aud": "https://hawkgate.example.com",
        "azp": "112233445566778899001",
        "email": "builder@example-project.iam.gserviceaccount.com",
        "email_verified": true,
        "iss": "https://accounts.google.com",
        "sub": "112233445566778899001",
        "nbf": null,
    });
    let other = json!({ "azp": "998877665544332211009", "sub": "998877665544332211009" });
    let user = json!({
        "aud": "32555940559.apps.googleusercontent.com",
        "azp": "32555940559.apps.googleusercontent.com",
        "sub": "104029292853099978293",
        "at_hash": "cpqKfdQA5eH891Ff5oJr_Q",
        "email": "jane.doe@example.com",
    });
    Imitation {
        page: "docs/guides/google.md",
        issuer: "google",
        profile: "workload",
        provider: "Google",
        accepted: vec![workload(
            "a service account's token",
            &header,
            account.clone(),
            "",
        )],
        refused: vec![
            workload(
                "another account's",
                &header,
                with(&account, &other),
                "token_not_allowed",
            ),
            Token {
                reason: "token_audience",
                ..id("a user's ID token", &header, with(&account, &user))
            },
        ],
    }
}

/// <https://docs.github.com/en/actions/reference/security/oidc>
fn github() -> Imitation {
    let header = json!({ "typ": "JWT", "x5t": "example-thumbprint" });
    let job = json!({
        "jti": "example-id",
        "sub": "repo:org/app:environment:prod",
        "environment": "prod",
        "aud": "https://hawkgate.example.com",
        "ref": "refs/heads/main",
        "sha": "example-sha",
        "repository": "org/app",
        "repository_owner": "org",
        "actor_id": "12",
        "repository_visibility": "private",
        "repository_id": "74",
        "repository_owner_id": "65",
        "run_id": "example-run-id",
        "run_number": "10",
        "run_attempt": "2",
        "runner_environment": "github-hosted",
        "actor": "octocat",
        "workflow": "example-workflow",
        "head_ref": "",
        "base_ref": "",
        "event_name": "workflow_dispatch",
        "ref_type": "branch",
        "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
        "iss": "https://token.actions.githubusercontent.com",
    });
    let other = json!({ "sub": "repo:org/other:ref:refs/heads/main", "repository": "org/other" });
    let default_audience = json!({ "aud": "https://github.com/org" });
    Imitation {
        page: "conf/github-actions.toml",
        issuer: "github",
        profile: "workload",
        provider: "GitHub Actions",
        accepted: vec![workload("a job's token", &header, job.clone(), "")],
        refused: vec![
            workload(
                "another repository's",
                &header,
                with(&job, &other),
                "token_not_allowed",
            ),
            workload(
                "GitHub's audience",
                &header,
                with(&job, &default_audience),
                "token_audience",
            ),
        ],
    }
}

/// <https://docs.gitlab.com/ci/secrets/id_token_authentication/>
fn gitlab() -> Imitation {
    let header = json!({ "typ": "JWT" });
    let job = json!({
        "namespace_id": "72",
        "namespace_path": "group",
        "project_id": "20",
        "project_path": "group/project",
        "user_id": "1",
        "user_login": "sample-user",
        "user_email": "sample-user@example.com",
        "pipeline_id": "574",
        "pipeline_source": "push",
        "job_id": "302",
        "ref": "main",
        "ref_type": "branch",
        "ref_path": "refs/heads/main",
        "ref_protected": "true",
        "runner_id": 1,
        "runner_environment": "self-hosted",
        "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        "project_visibility": "public",
        "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b",
        "iss": "https://gitlab.com",
        "sub": "project_path:group/project:ref_type:branch:ref:main",
        "aud": "https://hawkgate.example.com",
    });
    let other = json!({
        "sub": "project_path:group/project:ref_type:branch:ref:feature", "ref": "feature",
    });
    let sign_in = json!({
        "iss": "https://gitlab.com",
        "sub": "123456",
        "aud": "https://hawkgate.example.com",
        "auth_time": 1_795_201_809,
        "sub_legacy": "2be1a5a3",
        "name": "Jane Doe",
        "nickname": "jane",
        "nonce": "123523",
        "groups_direct": ["group"],
    });
    Imitation {
        page: "docs/guides/ci.md",
        issuer: "gitlab",
        profile: "workload",
        provider: "GitLab",
        accepted: vec![workload("a job's token", &header, job.clone(), "")],
        refused: vec![
            workload(
                "another branch's",
                &header,
                with(&job, &other),
                "token_not_allowed",
            ),
            Token {
                reason: "token_not_allowed",
                ..id("the ID token of a sign-in", &header, sign_in)
            },
        ],
    }
}

/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>
fn kubernetes() -> Imitation {
    let header = json!({});
    let pod = json!({
        "aud": ["https://hawkgate.example.com"],
        "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": "ed3f4f0e-2f8a-4a3c-9f3e-0a2f4b8e1d11",
        "kubernetes.io": {
            "namespace": "builds",
            "node": { "name": "node-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1" },
            "pod": { "name": "worker-1", "uid": "b0f0ed5e-9dbd-4d42-9dbd-e504e6cbe6b1" },
            "serviceaccount": { "name": "worker", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798" },
            "warnafter": 1_795_201_809,
        },
        "sub": "system:serviceaccount:builds:worker",
    });
    let other = json!({ "sub": "system:serviceaccount:other:worker" });
    let api_server = json!({ "aud": ["https://kubernetes.default.svc.cluster.local"] });
    Imitation {
        page: "docs/guides/kubernetes-identities.md",
        issuer: "cluster",
        profile: "workload",
        provider: "Kubernetes",
        accepted: vec![workload("a pod's token", &header, pod.clone(), "")],
        refused: vec![
            workload(
                "another account's",
                &header,
                with(&pod, &other),
                "token_not_allowed",
            ),
            workload(
                "for the API server",
                &header,
                with(&pod, &api_server),
                "token_audience",
            ),
        ],
    }
}
