//! Tokens of identity providers, imitated from their public documentation, under the profiles for
//! them: access tokens are accepted; ID tokens, refresh tokens and logout tokens are not.

use super::*;
use crate::token::settings::TokenFormat;
use crate::token::{Advice, Provider};
use TokenError as E;

const API: &str = "api://default";

struct Idp {
    profile: Profile,
    iss: &'static str,
    header: Value,
    /// An access token for [`API`] or, where the provider has no audiences, for the client.
    access: Value,
}

fn common(iss: &str, more: &Value) -> Value {
    let common = json!({"iss": iss, "exp": NOW + 600, "iat": NOW, "sub": "alice"});
    with(&common, more)
}

/// Okta, "Access token payload".
fn okta() -> Idp {
    let iss = "https://dev-1.okta.com/oauth2/default";
    Idp {
        profile: Profile::Okta,
        iss,
        header: json!({}),
        access: common(
            iss,
            &json!({
                "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "aud": API,
                "cid": "0oabcdefgh", "uid": "00u1", "scp": ["openid", "read"], "auth_time": NOW,
                "sub": "alice@example.com",
            }),
        ),
    }
}

/// Zitadel, "Claims": an opaque client and a project as audiences, no scopes.
fn zitadel() -> Idp {
    let iss = "https://org.zitadel.cloud";
    Idp {
        profile: Profile::Okta,
        iss,
        header: json!({}),
        access: common(
            iss,
            &json!({"aud": ["111@p", API], "client_id": "111@p", "nbf": NOW, "jti": "222"}),
        ),
    }
}

/// Microsoft, "Access token claims reference", version 2.0.
fn entra_v2() -> Idp {
    let iss = "https://login.microsoftonline.com/3d1f/v2.0";
    Idp {
        profile: Profile::Entra,
        iss,
        header: json!({"typ": "JWT"}),
        access: common(
            iss,
            &json!({
                "aud": API, "ver": "2.0", "tid": "3d1f", "oid": "o", "azp": "app", "azpacr": "0",
                "scp": "openid read", "name": "Alice", "preferred_username": "alice@example.com",
                "aio": "x", "rh": "0.x", "uti": "u", "nbf": NOW,
            }),
        ),
    }
}

/// Version 1.0.
fn entra_v1() -> Idp {
    let iss = "https://sts.windows.net/3d1f/";
    Idp {
        profile: Profile::Entra,
        iss,
        header: json!({"typ": "JWT", "x5t": "rsa"}),
        access: common(
            iss,
            &json!({
                "aud": API, "ver": "1.0", "tid": "3d1f", "oid": "o", "appid": "app",
                "appidacr": "1", "scp": "openid read", "amr": ["pwd"], "unique_name": "alice",
            }),
        ),
    }
}

/// Microsoft, "AD FS OpenID Connect/OAuth concepts".
fn adfs() -> Idp {
    let iss = "http://fs.example.com/adfs/services/trust";
    Idp {
        profile: Profile::Entra,
        iss,
        header: json!({"typ": "JWT", "x5t": "rsa"}),
        access: common(
            iss,
            &json!({
                "aud": format!("microsoft:identityserver:{API}"), "apptype": "Public",
                "appid": "4a9b", "ver": "1.0", "scp": "openid read",
                "authmethod": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
                "auth_time": "2027-01-15T08:00:00.000Z",
            }),
        ),
    }
}

/// Amazon, "Understanding the access token".
fn cognito() -> Idp {
    let iss = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_a";
    Idp {
        profile: Profile::Cognito,
        iss,
        header: json!({}),
        access: common(
            iss,
            &json!({
                "client_id": API, "token_use": "access", "scope": "openid read", "version": 2,
                "username": "alice", "cognito:groups": ["a"], "auth_time": NOW, "jti": "j",
                "origin_jti": "o", "event_id": "e",
            }),
        ),
    }
}

/// Keycloak's `AccessToken`.
fn keycloak() -> Idp {
    let iss = "https://kc.example.com/realms/dev";
    Idp {
        profile: Profile::Keycloak,
        iss,
        header: json!({"typ": "JWT"}),
        access: common(
            iss,
            &json!({
                "aud": [API, "account"], "typ": "Bearer", "azp": "app", "scope": "openid read",
                "sid": "s", "acr": "1", "allowed-origins": ["*"], "jti": "j", "auth_time": NOW,
                "realm_access": {"roles": ["user"]},
            }),
        ),
    }
}

impl Idp {
    fn config(&self) -> OidcIssuer {
        let mut config = configured(self.iss, self.profile);
        let audiences = [API, "app", "4a9b", "microsoft:identityserver:api://default"];
        config.audiences = audiences.map(str::to_owned).into();
        config
    }

    /// A token with these changes to header and claims.
    fn token(&self, header: &Value, claims: &Value) -> String {
        ED25519.token(&with(&self.header, header), &with(&self.access, claims))
    }

    async fn verified(&self, claims: &Value) -> Arc<VerifiedToken> {
        let token = self.token(&json!({}), claims);
        let verified = ask(&self.config(), &token).await;
        verified.unwrap_or_else(|error| panic!("{} {claims}: {error}", self.iss))
    }

    async fn error(&self, claims: &Value) -> TokenError {
        self.error_with(&self.config(), &json!({}), claims).await
    }

    async fn error_with(&self, config: &OidcIssuer, header: &Value, claims: &Value) -> TokenError {
        let token = self.token(header, claims);
        match ask(config, &token).await {
            Ok(_) => panic!("accepted: {} {header} {claims}", self.iss),
            Err(refused) => refused.error,
        }
    }
}

async fn ask(config: &OidcIssuer, token: &str) -> Result<Arc<VerifiedToken>, Unauthenticated> {
    let (clock, keys) = (clock(), ScriptedKeys::of(&[ED25519.jwk()]));
    let issuers = [issuer("idp", config, &keys, &clock)];
    let token = BearerToken::new(token).unwrap();
    let authenticated = authenticate(&token, &issuers, None).await?;
    match authenticated.caller {
        Caller::Verified(verified) => Ok(verified),
        other => panic!("{other:?}"),
    }
}

fn all() -> [Idp; 7] {
    [
        okta(),
        zitadel(),
        entra_v2(),
        entra_v1(),
        adfs(),
        cognito(),
        keycloak(),
    ]
}

#[tokio::test]
async fn access_tokens_of_each_provider_are_accepted_under_its_profile() {
    for (idp, client) in all()
        .iter()
        .zip(["0oabcdefgh", "111@p", "app", "app", "4a9b", API, "app"])
    {
        let token = idp.verified(&json!({})).await;
        assert_eq!(token.client(), Some(client), "{}", idp.iss);
        let scopes: &[&str] = if client == "111@p" {
            &[]
        } else {
            &["openid", "read"]
        };
        assert_eq!(token.scopes(), scopes, "{}", idp.iss);
    }
}

#[tokio::test]
async fn variants_of_access_tokens_are_accepted() {
    for (idp, changes) in [
        // Client credentials: the subject is the client, and there is no user.
        (
            okta(),
            json!({"sub": "0oabcdefgh", "uid": null, "auth_time": null}),
        ),
        (
            cognito(),
            json!({"sub": API, "username": null, "origin_jti": null, "cognito:groups": null}),
        ),
        (
            entra_v2(),
            json!({"scp": null, "roles": ["Task.Read"], "idtyp": "app", "sub": "o"}),
        ),
        (entra_v1(), json!({"scp": null, "idtyp": "app", "sub": "o"})),
        (adfs(), json!({"scp": null, "apptype": "Confidential"})),
        // The org authorization server.
        (okta(), json!({"aud": [API], "scp": ["okta.users.read"]})),
        // An app calls its own API.
        (entra_v2(), json!({"aud": "app"})),
        (entra_v2(), json!({"aud": "app", "scp": null})),
        (entra_v1(), json!({"aud": "app"})),
        (adfs(), json!({"aud": "4a9b"})),
        // Keycloak's audience mapper; versions before 24 have the nonce of the sign-in.
        (keycloak(), json!({"aud": ["app", API]})),
        (keycloak(), json!({"aud": "app"})),
        (keycloak(), json!({"nonce": "n"})),
        (keycloak(), json!({"typ": "bearer"})),
        // Resource binding adds an audience.
        (cognito(), json!({"aud": "app"})),
    ] {
        idp.verified(&changes).await;
    }
    for (idp, header) in [
        (okta(), json!({"typ": "at+jwt"})),
        (okta(), json!({"typ": "application/okta-internal-at+jwt"})),
        (zitadel(), json!({"typ": "JWT"})),
        (keycloak(), json!({"typ": "at+jwt"})),
        (keycloak(), json!({"typ": "jwt"})),
    ] {
        let token = idp.token(&header, &json!({}));
        let verified = ask(&idp.config(), &token).await;
        assert!(verified.is_ok(), "{} {header}: {verified:?}", idp.iss);
    }
}

#[tokio::test]
async fn id_tokens_are_refused_even_if_the_audience_is_accepted() {
    for (idp, changes) in [
        (
            okta(),
            json!({"jti": "ID.1", "cid": null, "scp": null, "amr": ["pwd"]}),
        ),
        (okta(), json!({"jti": "ID.1"})),
        (okta(), json!({"cid": null, "scp": null, "nonce": "n"})),
        (okta(), json!({"at_hash": "h"})),
        (zitadel(), json!({"azp": "111@p", "at_hash": "h"})),
        (zitadel(), json!({"nonce": "n"})),
        (zitadel(), json!({"c_hash": "h"})),
        (
            entra_v2(),
            json!({"azp": null, "azpacr": null, "scp": null, "nonce": "n"}),
        ),
        (entra_v2(), json!({"c_hash": "h"})),
        (entra_v1(), json!({"nonce": "n"})),
        (adfs(), json!({"nonce": "n"})),
        (
            cognito(),
            json!({"client_id": null, "aud": API, "token_use": "id"}),
        ),
        (cognito(), json!({"token_use": "id"})),
        (cognito(), json!({"at_hash": "h"})),
        (keycloak(), json!({"typ": "ID", "aud": "app"})),
        (
            keycloak(),
            json!({"typ": "ID", "nonce": "n", "at_hash": "h"}),
        ),
        (keycloak(), json!({"at_hash": "h"})),
    ] {
        assert_eq!(
            idp.error(&changes).await,
            E::IdToken,
            "{} {changes}",
            idp.iss
        );
    }
}

/// Without any claim that ID tokens alone have, the absence of those that access tokens always have
/// is decisive.
#[tokio::test]
async fn tokens_that_cannot_be_told_from_id_tokens_are_refused() {
    for (idp, changes) in [
        (okta(), json!({"jti": null, "cid": null, "scp": null})),
        (okta(), json!({"jti": null, "cid": API, "scp": null})),
        (zitadel(), json!({"client_id": null})),
        (zitadel(), json!({"client_id": API})),
        (
            entra_v2(),
            json!({"azp": null, "azpacr": null, "scp": null}),
        ),
        (
            entra_v2(),
            json!({"azp": null, "azpacr": null, "scp": null, "roles": ["r"], "aud": "app"}),
        ),
        (
            entra_v2(),
            json!({"azpacr": null, "scp": null, "aud": "app"}),
        ),
        (
            entra_v1(),
            json!({"appid": null, "appidacr": null, "scp": null}),
        ),
        (cognito(), json!({"token_use": null})),
        (cognito(), json!({"token_use": "other"})),
        (cognito(), json!({"token_use": ["access"]})),
        (keycloak(), json!({"typ": null})),
        (keycloak(), json!({"typ": "Registration"})),
    ] {
        let error = idp.error(&changes).await;
        assert!(
            matches!(error, E::NotAccessToken { .. }),
            "{} {changes}: {error}",
            idp.iss
        );
    }
}

#[tokio::test]
async fn refresh_and_logout_tokens_are_refused() {
    let logout = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    for idp in all() {
        for (changes, error) in [
            (json!({"typ": "Refresh"}), E::RefreshToken),
            (json!({"typ": "Offline"}), E::RefreshToken),
            (json!({"token_use": "refresh"}), E::RefreshToken),
            (json!({"typ": "Logout"}), E::LogoutToken),
            (json!({"events": logout}), E::LogoutToken),
        ] {
            assert_eq!(idp.error(&changes).await, error, "{} {changes}", idp.iss);
        }
        for typ in ["logout+jwt", "dpop+jwt", "id+jwt", "jwt+x", "application/"] {
            let header = json!({ "typ": typ });
            let error = idp.error_with(&idp.config(), &header, &json!({})).await;
            assert_eq!(error, E::WrongType, "{} {typ}", idp.iss);
        }
    }
    // Profile workload takes ID tokens, but not these.
    let mut config = configured(MAIN, Profile::Workload);
    config.subjects = Some(vec!["*".into()]);
    let idp = Idp {
        profile: Profile::Workload,
        iss: MAIN,
        header: json!({}),
        access: claims(),
    };
    for (changes, error) in [
        (json!({"typ": "Offline"}), E::RefreshToken),
        (json!({"typ": "Logout"}), E::LogoutToken),
        (json!({"typ": "ID", "events": logout}), E::LogoutToken),
    ] {
        let refused = idp.error_with(&config, &json!({}), &changes).await;
        assert_eq!(refused, error, "{changes}");
    }
    let id_token = idp.token(&json!({}), &json!({"typ": "ID", "nonce": "n"}));
    assert!(ask(&config, &id_token).await.is_ok());
}

#[tokio::test]
async fn everything_else_is_checked_under_each_profile() {
    for idp in all() {
        let mut strict = idp.config();
        strict.subjects = Some(vec!["bob*".into()]);
        let error = idp.error_with(&strict, &json!({}), &json!({})).await;
        assert_eq!(error, E::SubjectNotAllowed, "{}", idp.iss);
        let mut strict = idp.config();
        strict.clients = Some(vec!["another".into()]);
        let error = idp.error_with(&strict, &json!({}), &json!({})).await;
        assert_eq!(error, E::ClientNotAllowed, "{}", idp.iss);
        for (changes, error) in [
            (json!({"exp": NOW - 31}), E::Expired),
            (json!({"sub": null}), E::claim("sub")),
            (json!({"cnf": {"jkt": "x"}}), E::Bound),
            (
                json!({"aud": "elsewhere", "client_id": "elsewhere", "cid": null, "azp": null, "appid": "x"}),
                E::WrongAudience,
            ),
        ] {
            let found = idp.error(&changes).await;
            assert_eq!(found, error, "{} {changes}", idp.iss);
        }
    }
    for (idp, changes) in [
        (okta(), json!({"client_id": "another"})),
        (entra_v2(), json!({"appid": "another"})),
        (keycloak(), json!({"client_id": "another"})),
        (cognito(), json!({"azp": "another"})),
    ] {
        assert_eq!(idp.error(&changes).await, E::ClientMismatch, "{}", idp.iss);
    }
}

/// A token with an audience is meant for that, whichever claim the profile reads (RFC 7519 §4.1.3).
#[tokio::test]
async fn an_audience_is_checked_even_if_it_is_in_another_claim() {
    let error = cognito()
        .error(&json!({"aud": "https://another-api.example"}))
        .await;
    assert_eq!(error, E::WrongAudience);
    let error = cognito().error(&json!({"client_id": null})).await;
    assert_eq!(
        error,
        E::InvalidClaim {
            role: crate::token::ClaimRole::Audience,
            name: "client_id".into(),
        }
    );
}

fn custom(types: &[&str], change: impl FnOnce(&mut TokenFormat)) -> OidcIssuer {
    let mut config = configured(MAIN, Profile::Rfc9068);
    let types = types.iter().map(|typ| (*typ).to_owned()).collect();
    config.format.token_types = Some(types);
    change(&mut config.format);
    config
}

#[tokio::test]
async fn keys_can_be_written_one_by_one() {
    let idp = |access: Value| Idp {
        profile: Profile::Rfc9068,
        iss: MAIN,
        header: json!({}),
        access,
    };
    let access = idp(claims());
    let both = custom(&["", "JWT"], |_| {});
    for typ in [Value::Null, json!("JWT"), json!("jwt")] {
        let token = access.token(&json!({ "typ": typ }), &json!({}));
        assert!(ask(&both, &token).await.is_ok(), "{typ}");
    }
    // What is written replaces the profile's types.
    let error = access.error_with(&both, &at_jwt(), &json!({})).await;
    assert_eq!(error, E::WrongType);
    for (changes, error) in [
        (json!({"nonce": "n"}), E::IdToken),
        (json!({"at_hash": "h"}), E::IdToken),
        (json!({"typ": "ID"}), E::IdToken),
        (json!({"token_use": "id"}), E::IdToken),
        (json!({"typ": "Refresh"}), E::RefreshToken),
        (
            json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
            E::LogoutToken,
        ),
    ] {
        assert_eq!(
            access.error_with(&both, &json!({}), &changes).await,
            error,
            "{changes}"
        );
    }
    for changes in [
        json!({"scope": null, "client_id": null}),
        json!({"scope": null, "client_id": AUDIENCE}),
        json!({"scope": null, "client_id": null, "azp": AUDIENCE}),
    ] {
        let error = access.error_with(&both, &json!({}), &changes).await;
        assert!(
            matches!(error, E::NotAccessToken { .. }),
            "{changes}: {error}"
        );
    }
    let renamed = custom(&["x+jwt"], |format| {
        format.scope_claims = vec!["https://example.com/scopes".into(), "scp".into()];
        format.audience_claims = vec!["resource".into(), "aud".into()];
        format.client_claims = vec!["app".into()];
    });
    let header = json!({"typ": "application/X+JWT"});
    let changes = json!({
        "scope": "ignored", "scp": "later", "https://example.com/scopes": ["a", "b"],
        "resource": AUDIENCE, "client_id": "ignored", "azp": "differs", "app": "mine",
    });
    let token = ask(&renamed, &access.token(&header, &changes))
        .await
        .unwrap();
    assert_eq!(
        (token.scopes().join(" "), token.client()),
        ("a b".into(), Some("mine"))
    );
    for (changes, error) in [
        (
            json!({"resource": "elsewhere", "app": "mine"}),
            E::WrongAudience,
        ),
        // `aud` is among the names, but not the first that the token has.
        (
            json!({"resource": AUDIENCE, "aud": "elsewhere", "app": "mine"}),
            E::WrongAudience,
        ),
        (
            json!({"resource": [AUDIENCE, 1], "app": "mine"}),
            E::InvalidClaim {
                role: crate::token::ClaimRole::Audience,
                name: "resource".into(),
            },
        ),
        (
            json!({"app": 1}),
            E::InvalidClaim {
                role: crate::token::ClaimRole::Client,
                name: "app".into(),
            },
        ),
        (
            json!({"scp": {}}),
            E::InvalidClaim {
                role: crate::token::ClaimRole::Scopes,
                name: "scp".into(),
            },
        ),
    ] {
        assert_eq!(
            access.error_with(&renamed, &header, &changes).await,
            error,
            "{changes}"
        );
    }
}

#[tokio::test]
async fn scopes_are_read_from_scp_if_there_is_no_scope() {
    let main = Idp {
        profile: Profile::Rfc9068,
        iss: MAIN,
        header: at_jwt(),
        access: claims(),
    };
    let config = configured(MAIN, Profile::Rfc9068);
    for (changes, scopes) in [
        (json!({"scope": null, "scp": "a b"}), "a b"),
        (json!({"scope": null, "scp": ["a", "b"]}), "a b"),
        (json!({"scp": ["x"]}), "openid profile"),
        (json!({"scope": "", "scp": ["x"]}), ""),
        (json!({"scope": null}), ""),
    ] {
        let token = ask(&config, &main.token(&json!({}), &changes))
            .await
            .unwrap();
        assert_eq!(token.scopes().join(" "), scopes, "{changes}");
    }
}

/// Rules that were there before the profiles stay as strict.
#[tokio::test]
async fn auth0_and_rfc9068_accept_none_of_these_tokens() {
    for idp in all() {
        for profile in [Profile::Rfc9068, Profile::Auth0] {
            let mut config = idp.config();
            (config.profile, config.format) = (profile, profile.format());
            let token = idp.token(&json!({}), &json!({"nonce": "n"}));
            assert!(
                ask(&config, &token).await.is_err(),
                "{} {profile:?}",
                idp.iss
            );
        }
    }
    let main = Idp {
        profile: Profile::Auth0,
        iss: MAIN,
        header: json!({}),
        access: claims(),
    };
    for typ in ["application/JWT", "at+jwt", ""] {
        let header = json!({ "typ": typ });
        let error = main
            .error_with(&configured(MAIN, Profile::Auth0), &header, &json!({}))
            .await;
        assert_eq!(error, E::WrongType, "{typ}");
    }
}

#[tokio::test]
async fn the_profile_that_would_accept_a_token_is_named() {
    let of = [
        Provider::Okta,
        Provider::Zitadel,
        Provider::Entra,
        Provider::Entra,
        Provider::AdFs,
        Provider::Cognito,
        Provider::Keycloak,
    ];
    for (idp, provider) in all().iter().zip(of) {
        let mut config = idp.config();
        (config.profile, config.format) = (Profile::Rfc9068, Profile::Rfc9068.format());
        let refused = ask(&config, &idp.token(&json!({}), &json!({})))
            .await
            .unwrap_err();
        assert_eq!(
            refused.advice,
            Some(Advice::Profile(provider)),
            "{}",
            idp.iss
        );
        let text = refused.to_string();
        assert!(
            text.contains("this looks like") && text.contains("takes it"),
            "{text}"
        );
        // Never for a token that the profile would refuse.
        let id_token = json!({"at_hash": "h", "typ": "ID", "token_use": "id", "jti": "ID.1"});
        let refused = ask(&config, &idp.token(&json!({}), &id_token))
            .await
            .unwrap_err();
        assert_eq!(refused.advice, Some(Advice::SendAccessToken), "{}", idp.iss);
    }
    let keycloak = keycloak();
    let mut config = keycloak.config();
    (config.profile, config.format) = (Profile::Auth0, Profile::Auth0.format());
    let token = keycloak.token(&json!({}), &json!({"nonce": "n"}));
    let refused = ask(&config, &token).await.unwrap_err();
    let text = refused.to_string();
    assert!(!text.contains("is an ID token"), "{text}");
    assert_eq!(
        (refused.error, refused.advice),
        (E::IdToken, Some(Advice::Profile(Provider::Keycloak)))
    );
    let auth0 = Idp {
        profile: Profile::Auth0,
        iss: MAIN,
        header: at_jwt(),
        access: claims(),
    };
    let config = configured(MAIN, Profile::Auth0);
    let refused = ask(&config, &auth0.token(&json!({}), &json!({})))
        .await
        .unwrap_err();
    assert_eq!(refused.advice, Some(Advice::Profile(Provider::Rfc9068)));
}

/// RFC 7519 §2: a NumericDate may have a fraction or an exponent.
#[tokio::test]
async fn times_with_fractions_are_checked_to_the_millisecond() {
    let fixture = Fixture::new();
    for changes in [
        json!({"exp": 1_800_000_600.5, "iat": 1.8e9, "nbf": 1_799_999_999.25}),
        json!({"exp": 1.9e9}),
        json!({"exp": 1_799_999_970.25}),
        json!({"nbf": 1_800_000_029.999}),
    ] {
        let token = RSA.token(&at_jwt(), &claims_with(&changes));
        assert_eq!(fixture.verify(&token).await, "ok", "{changes}");
    }
    let token = RSA.token_of(
        "RS256",
        &json!({"alg": "RS256", "kid": "rsa", "typ": "at+jwt"}).to_string(),
        &claims().to_string().replace("1800000600", "18000006E2"),
    );
    assert_eq!(fixture.verify(&token).await, "ok");
    let verified = fixture
        .verified(&RSA.token(&at_jwt(), &claims_with(&json!({"exp": 1_800_000_600.5}))))
        .await;
    assert_eq!(verified.expires_at(), UnixMillis(1_800_000_600_500));
}
