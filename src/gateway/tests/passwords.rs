//! Routes whose source takes a password, and sources whose credentials can be renewed only by
//! signing in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use http::HeaderMap;

use super::*;
use crate::credential::SignInProblem;
use crate::gateway::session::SessionTable;

/// A source of numbered tokens that fails with `problem` while it is set.
#[derive(Debug, Default)]
struct SignInSource {
    fetched: AtomicUsize,
    problem: Mutex<Option<SignInProblem>>,
    takes_password: bool,
    needs_sign_in: bool,
}

#[async_trait]
impl CredentialSource for SignInSource {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        if let Caller::Password { credentials, peer } = &request.caller {
            assert_eq!(*peer, Some([127, 0, 0, 1].into()));
            assert_eq!(credentials.username(), "anna");
        }
        if let Some(problem) = *self.problem.lock().unwrap() {
            return Err(FetchError::SignIn {
                problem,
                cause: "scripted".into(),
                retry_after: Some(Duration::from_secs(7)),
            });
        }
        let number = self.fetched.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Issued {
            credential: Credential::Bearer(SecretString::new(format!("token-{number}"))),
            expires_at: None,
            original: None,
        })
    }

    fn takes_password(&self) -> bool {
        self.takes_password
    }

    fn needs_sign_in(&self) -> bool {
        self.needs_sign_in
    }

    fn recovery_code(&self, _: &SwapRequest) -> Option<SecretString> {
        self.takes_password.then(|| "NEWCODE".into())
    }
}

fn gateway(source: SignInSource) -> (Gateway, Arc<SignInSource>) {
    let clock = ManualClock::at(NOW);
    let source = Arc::new(source);
    let mut route = routes::route("users", None, "/", None);
    route.anonymous = !source.takes_password;
    route.source = Some(routes::source(source.clone(), clock.clone()));
    let routes = RouteTable::new(vec![Arc::new(route)]);
    let gateway = Gateway {
        routes,
        sessions: SessionTable::default(),
        login: None,
        credentials: None,
        max_token_bytes: crate::token::DEFAULT_TOKEN_BYTES,
        rule_headers: vec![],
        forward_auth: vec![],
        isolation: IsolationPolicy::default(),
        observability: Observability::default(),
        clock,
    };
    (gateway, source)
}

fn password_gateway() -> (Gateway, Arc<SignInSource>) {
    gateway(SignInSource {
        takes_password: true,
        ..SignInSource::default()
    })
}

async fn admit(
    gateway: &Gateway,
    target: &str,
    authorization: Option<&str>,
) -> Result<Admission, Box<AdmissionError>> {
    let mut headers = HeaderMap::new();
    if let Some(value) = authorization {
        headers.insert(http::header::AUTHORIZATION, value.parse().unwrap());
    }
    let head = Head {
        peer: Some([127, 0, 0, 1].into()),
        ..Head::for_test(target, &headers)
    };
    gateway.admit(head).await
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("anna:{password}")))
}

#[tokio::test]
async fn a_password_route_refuses_requests_without_a_password() {
    let (gateway, source) = password_gateway();
    for (target, authorization, reason) in [
        ("/x", None, Reason::MissingPassword),
        ("/x?bewit=abc", None, Reason::MissingPassword),
        ("/x", Some("Bearer abc"), Reason::MissingPassword),
        ("/x", Some("Basic"), Reason::InvalidAuthorization),
    ] {
        let refused = admit(&gateway, target, authorization).await.unwrap_err();
        assert_eq!(refused.rejection.reason, reason);
        assert!(refused.rejection.basic_challenge);
    }
    assert_eq!(source.fetched.load(Ordering::SeqCst), 0);
    let admission = admit(&gateway, "/x?bewit=abc", Some(&basic("p")))
        .await
        .unwrap();
    assert_eq!(admission.lookup, Some(Lookup::Fetched));
    assert!(admission.caller.issuer().is_none());
    let header = gateway
        .sign(&admission, &Method::GET, "/x")
        .unwrap()
        .unwrap();
    assert_eq!(header.value, "Bearer token-1");
}

#[tokio::test]
async fn cached_credentials_are_keyed_by_the_password() {
    let (gateway, source) = password_gateway();
    for (password, lookup) in [
        ("p", Lookup::Fetched),
        ("p", Lookup::Hit),
        ("q", Lookup::Fetched),
        ("", Lookup::Failed),
        ("p", Lookup::Hit),
    ] {
        match admit(&gateway, "/x", Some(&basic(password))).await {
            Ok(admission) => assert_eq!(admission.lookup, Some(lookup), "{password}"),
            Err(refused) => assert_eq!(refused.rejection.reason, Reason::MissingPassword),
        }
    }
    assert_eq!(source.fetched.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn each_sign_in_failure_has_its_reason_and_is_not_cached() {
    let (gateway, source) = password_gateway();
    for (problem, reason, status) in [
        (SignInProblem::Password, Reason::PasswordRefused, 401),
        (SignInProblem::CodeRequired, Reason::MfaRequired, 401),
        (SignInProblem::CodeRefused, Reason::MfaRefused, 401),
        (SignInProblem::Unconfirmed, Reason::MfaPending, 401),
        (SignInProblem::NoFactor, Reason::MfaUnavailable, 403),
        (SignInProblem::TooManyAttempts, Reason::TooManyAttempts, 429),
    ] {
        *source.problem.lock().unwrap() = Some(problem);
        let refused = admit(&gateway, "/x", Some(&basic("p"))).await.unwrap_err();
        assert_eq!(refused.rejection.reason, reason);
        let response = refused.rejection.to_response(&Method::GET, NOW);
        assert_eq!(response.status, status);
        let values = |name: &str| -> Vec<_> {
            let all = response.headers.iter().filter(|(n, _)| *n == name);
            all.map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(values("retry-after"), ["7"]);
        let challenges = values("www-authenticate");
        if status == 401 {
            let expected = [
                "Basic realm=\"hawkgate\", charset=\"UTF-8\"",
                "Bearer realm=\"hawkgate\"",
            ];
            assert_eq!(challenges, expected);
        } else {
            assert!(challenges.is_empty());
        }
    }
    *source.problem.lock().unwrap() = None;
    admit(&gateway, "/x", Some(&basic("p"))).await.unwrap();
}

#[tokio::test]
async fn a_recovery_code_is_returned_with_one_admission_only() {
    let (gateway, _) = password_gateway();
    let mut admission = admit(&gateway, "/x", Some(&basic("p"))).await.unwrap();
    let code = admission.take_recovery_code().unwrap();
    assert_eq!(code.expose(), "NEWCODE");
    assert!(admission.take_recovery_code().is_none());
    // A cache hit yields no recovery code.
    let mut admission = admit(&gateway, "/x", Some(&basic("p"))).await.unwrap();
    assert!(admission.take_recovery_code().is_none());
    let shown = format!("{admission:?}");
    assert!(
        !shown.contains("NEWCODE") && !shown.contains("anna"),
        "{shown}"
    );
}

#[tokio::test]
async fn sign_in_again_is_returned_after_one_replay() {
    for needs_sign_in in [true, false] {
        let (gateway, source) = gateway(SignInSource {
            needs_sign_in,
            ..SignInSource::default()
        });
        let mut admission = admit(&gateway, "/x", None).await.unwrap();
        let unauthorized = super::unauthorized();
        let first = gateway
            .recover(&mut admission, unauthorized, REPLAYABLE)
            .await;
        assert_eq!(replayed(&first), UnauthorizedReason::FreshCredentials);
        match gateway
            .recover(&mut admission, unauthorized, REPLAYABLE)
            .await
        {
            Recovery::Refuse(UnauthorizedReason::StillUnauthorized, rejection) if needs_sign_in => {
                assert_eq!(rejection.reason, Reason::SignInAgain);
            }
            other => {
                assert!(!needs_sign_in, "{other:?}");
                assert_eq!(
                    passed_through(&other),
                    UnauthorizedReason::StillUnauthorized
                );
            }
        }
        assert_eq!(source.fetched.load(Ordering::SeqCst), 2);
    }
}
