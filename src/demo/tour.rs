//! The tour: sends real requests over real sockets, checks each one at every hop, and explains
//! it.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use url::Url;

use super::api::{self, ReceivedRequest};
use super::identity_provider::{USERS, Validity};
use super::{AUDIENCE, Demo, DemoError, Style, origin};
use crate::remote::http_client::HttpResponse;

const READ: &str = "/api/auth/v1/scopes/current";
const WRITE: &str = "/api/hooks/v1/hooks/demo/greet/trigger";
const HOUR: Duration = Duration::from_hours(1);
/// How often the tour polls for an event, at intervals of [`POLL_INTERVAL`].
const MAX_POLLS: u32 = 100;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

const FROM_YOU: &str = "you -> hawkgate";
const TO_YOU: &str = "hawkgate -> you";
const TO_API: &str = "hawkgate -> API";
const FROM_API: &str = "API -> hawkgate";

/// Performs the tour and explains it on `out`.
///
/// # Errors
/// Returns an error if a step has an unexpected result, or if `out` cannot be written.
pub async fn tour(demo: &Demo, style: Style, out: &mut dyn Write) -> Result<(), DemoError> {
    let mut tour = Tour { demo, style, out };
    tour.introduce()?;
    tour.wait_until_ready().await?;
    let token = demo
        .identity_provider
        .token(AUDIENCE, Validity::For(HOUR))?;
    tour.swap(&token).await?;
    tour.replay(&token).await?;
    tour.refusal().await?;
    tour.try_it(&token)
}

/// Prints how to get from the demo to the user's own configuration. `program` is the name with
/// which hawkgate was called.
///
/// # Errors
/// Returns an error if `out` cannot be written.
pub fn next_steps(program: &str, style: Style, out: &mut dyn Write) -> Result<(), DemoError> {
    let title = style.title("Next: your own configuration");
    writeln!(out, "{title}")?;
    let steps = [
        (
            format!("{program} demo --print-config > hawkgate.toml"),
            "the configuration of this demo, with explanations",
        ),
        (
            "$EDITOR hawkgate.toml".into(),
            "set your issuer, source and route on the lines marked with <--",
        ),
        (
            format!("{program} check --config hawkgate.toml"),
            "reports every error, with its line and remedy",
        ),
        (
            format!("{program} run --config hawkgate.toml"),
            "serves until Ctrl-C",
        ),
    ];
    let width = steps.iter().map(|(command, _)| command.len()).max();
    let width = width.unwrap_or_default();
    for (command, comment) in steps {
        writeln!(out, "  {command:<width$}   # {comment}")?;
    }
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Tells the user how to stop the demo.
///
/// # Errors
/// Returns an error if `out` cannot be written.
pub fn keeps_running(style: Style, out: &mut dyn Write) -> Result<(), DemoError> {
    let text = style.title("All servers keep running. Press Ctrl-C to stop them.");
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

struct Tour<'a> {
    demo: &'a Demo,
    style: Style,
    out: &'a mut dyn Write,
}

fn ensure(condition: bool, failure: impl FnOnce() -> String) -> Result<(), DemoError> {
    if condition {
        Ok(())
    } else {
        Err(DemoError::Tour(failure()))
    }
}

impl Tour<'_> {
    fn introduce(&mut self) -> Result<(), DemoError> {
        let title = self.style.title("hawkgate demo");
        writeln!(
            self.out,
            "{title}: four servers on loopback, all in this process\n"
        )?;
        let demo = self.demo;
        self.party(
            "identity provider",
            &demo.identity_provider.url,
            "signs you in: issues bearer tokens",
        )?;
        self.party(
            "API",
            &demo.api.url,
            "does not accept bearer tokens: every request must be signed with Hawk",
        )?;
        self.party(
            "hawkgate",
            &demo.hawkgate,
            "sits between you and the API, and swaps the token for a signature",
        )?;
        self.party(
            "web application",
            &demo.page,
            "a page behind hawkgate, which calls the API without a token",
        )
    }

    fn party(&mut self, name: &str, url: &Url, role: &str) -> Result<(), DemoError> {
        let name = self.style.party(name);
        Ok(writeln!(self.out, "  {name} {}  {role}", origin(url))?)
    }

    fn title(&mut self, text: &str) -> Result<(), DemoError> {
        let title = self.style.title(text);
        Ok(writeln!(self.out, "\n{title}")?)
    }

    fn step(&mut self, party: &str, text: &str) -> Result<(), DemoError> {
        let party = self.style.party(party);
        Ok(writeln!(self.out, "  {party} {text}")?)
    }

    fn success(&mut self, text: &str) -> Result<(), DemoError> {
        let ok = self.style.success("ok:");
        Ok(writeln!(self.out, "  {ok} {text}")?)
    }

    async fn wait_until_ready(&self) -> Result<(), DemoError> {
        let ready = join(&self.demo.admin, "/readyz")?;
        for _ in 0..MAX_POLLS {
            let response = self.demo.client.get(&ready, HeaderMap::new()).await;
            if response.is_ok_and(|a| a.status == StatusCode::OK) {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Err(DemoError::Start("hawkgate did not become ready".into()))
    }

    async fn swap(&mut self, token: &str) -> Result<(), DemoError> {
        self.title("1. Swap: you send a bearer token, the API gets a signed request")?;
        let fetched = self.lookups("fetched").await?;
        let response = self.get(token).await?;
        let request = &self.received(1)?[0];
        expect_status(&response, StatusCode::OK)?;
        self.wait_for_lookups("fetched", fetched + 1).await?;
        let exchanges = self.demo.api.exchanges();
        ensure(exchanges == 1, || {
            format!("{exchanges} exchanges instead of one")
        })?;
        let client = signed_by(request)?;
        self.step(FROM_YOU, &format!("GET {READ}"))?;
        self.step(
            "",
            &format!(
                "Authorization: Bearer {} ({} characters)",
                prefix_of(token),
                token.len()
            ),
        )?;
        self.step(
            "hawkgate",
            "verifies the token's signature, issuer, audience and expiry,",
        )?;
        self.step(
            "",
            "exchanges it for credentials valid for 15 minutes (cache lookup: fetched)",
        )?;
        self.step(TO_API, &request.line)?;
        self.step(
            "",
            &format!("Authorization: Hawk id=\"{client}\", ..., and no bearer token"),
        )?;
        self.step(TO_YOU, &summary(&response))?;
        let hits = self.lookups("hit").await?;
        expect_status(&self.get(token).await?, StatusCode::OK)?;
        signed_by(&self.received(1)?[0])?;
        self.wait_for_lookups("hit", hits + 1).await?;
        ensure(self.demo.api.exchanges() == 1, || {
            "the second request caused a second exchange".into()
        })?;
        self.success("a second request used the cached credentials (cache lookup: hit)")
    }

    async fn replay(&mut self, token: &str) -> Result<(), DemoError> {
        self.title("2. Replay: the API revokes the credentials, and you never see its 401")?;
        self.demo.api.revoke()?;
        let before = self.demo.api.exchanges();
        let body = Bytes::from_static(br#"{"greeting": "hello", "to": "everybody"}"#);
        let mut headers = bearer(token)?;
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        let url = join(&self.demo.hawkgate, WRITE)?;
        let response = self.demo.client.post(&url, headers, body.clone()).await?;
        expect_status(&response, StatusCode::OK)?;
        let requests = self.received(2)?;
        let Err(refusal) = &requests[0].client else {
            return Err(DemoError::Tour("revoked credentials were accepted".into()));
        };
        let client = signed_by(&requests[1])?;
        let hash = api::sha256(&body);
        ensure(requests.iter().all(|r| r.sha256 == hash), || {
            "the API received a different body from the one sent".into()
        })?;
        let exchanges = self.demo.api.exchanges() - before;
        ensure(exchanges == 1, || {
            format!("{exchanges} exchanges instead of one")
        })?;
        self.step("API", "revokes every credential that it has issued")?;
        self.step(
            FROM_YOU,
            &format!("POST {WRITE}, {} bytes of JSON", body.len()),
        )?;
        self.step(
            TO_API,
            &format!("{} with the cached credentials", requests[0].line),
        )?;
        self.step(FROM_API, &format!("401 {refusal}"))?;
        self.step(
            "hawkgate",
            "exchanges the token again and signs the request with the new credentials",
        )?;
        self.step(
            TO_API,
            &format!("the same POST as {client}, body SHA-256 {}...", &hash[..12]),
        )?;
        self.step(TO_YOU, &summary(&response))?;
        self.success("one exchange, the same body sent twice, and you saw only the 200")
    }

    async fn refusal(&mut self) -> Result<(), DemoError> {
        self.title("3. Refusal: an invalid token never reaches the API")?;
        let provider = &self.demo.identity_provider;
        let other_audience = provider.token("another-api", Validity::For(HOUR))?;
        let expired = provider.token(AUDIENCE, Validity::ExpiredFor(HOUR))?;
        let cases = [
            ("a token for another API", other_audience, "token_audience"),
            ("a token that expired an hour ago", expired, "token_expired"),
        ];
        let exchanges = self.demo.api.exchanges();
        for (what, token, reason) in cases {
            let response = self.get(&token).await?;
            expect_status(&response, StatusCode::UNAUTHORIZED)?;
            let sent = response.header(&HeaderName::from_static("x-hawkgate-error"));
            ensure(sent == Some(reason), || {
                format!("{what}: X-Hawkgate-Error is {sent:?}")
            })?;
            self.step(FROM_YOU, &format!("GET {READ} with {what}"))?;
            self.step(TO_YOU, &format!("401, X-Hawkgate-Error: {reason}"))?;
        }
        self.received(0)?;
        ensure(self.demo.api.exchanges() == exchanges, || {
            "a refused token was exchanged".into()
        })?;
        self.success("the API received neither request")
    }

    fn try_it(&mut self, token: &str) -> Result<(), DemoError> {
        let hawkgate = origin(&self.demo.hawkgate);
        let api = origin(&self.demo.api.url);
        let admin = origin(&self.demo.admin);
        self.title("Try it yourself (the token is valid for an hour, for this demo only)")?;
        writeln!(
            self.out,
            "  curl -i -H 'Authorization: Bearer {token}' {hawkgate}{READ}"
        )?;
        writeln!(
            self.out,
            "  curl -X POST {api}{}   # revokes the credentials; then repeat the first command",
            api::REVOKE
        )?;
        writeln!(self.out, "  curl {admin}/metrics   # hawkgate's metrics")?;
        self.in_a_browser()
    }

    fn in_a_browser(&mut self) -> Result<(), DemoError> {
        self.title("In a browser: sign in, and follow each call of a page hop by hop")?;
        writeln!(self.out, "  open {}", self.demo.page)?;
        for user in &USERS {
            let (name, password) = (user.sub, user.password);
            writeln!(
                self.out,
                "  sign in as {name:<5} with the password {password}"
            )?;
        }
        writeln!(self.out)?;
        Ok(self.out.flush()?)
    }

    async fn get(&self, token: &str) -> Result<HttpResponse, DemoError> {
        let url = join(&self.demo.hawkgate, READ)?;
        Ok(self.demo.client.get(&url, bearer(token)?).await?)
    }

    /// Returns the requests that the API received since the last call, and checks that there are
    /// `count`.
    fn received(&self, count: usize) -> Result<Vec<ReceivedRequest>, DemoError> {
        let requests = self.demo.api.take_requests();
        let actual = requests.len();
        ensure(actual == count, || {
            format!("the API received {actual} requests instead of {count}")
        })?;
        Ok(requests)
    }

    /// Waits until `expected` lookups with `result` have been counted, because hawkgate records
    /// a request shortly after sending its response.
    async fn wait_for_lookups(&self, result: &str, expected: u64) -> Result<(), DemoError> {
        let mut count = self.lookups(result).await?;
        for _ in 0..MAX_POLLS {
            if count >= expected {
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            count = self.lookups(result).await?;
        }
        ensure(count == expected, || {
            format!("/metrics counts {count} lookups with result {result} instead of {expected}")
        })
    }

    /// Returns the number of credential lookups with this result, according to hawkgate's
    /// metrics.
    async fn lookups(&self, result: &str) -> Result<u64, DemoError> {
        let url = join(&self.demo.admin, "/metrics")?;
        let response = self.demo.client.get(&url, HeaderMap::new()).await?;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let label = format!("result=\"{result}\"");
        let line = text.lines().find(|line| {
            line.starts_with("hawkgate_credential_cache_lookups_total{")
                && line.contains(&label)
                && line.contains("source=\"demo-login\"")
        });
        let count = line.and_then(|l| l.rsplit(' ').next()?.parse().ok());
        count.ok_or_else(|| DemoError::Tour(format!("/metrics has no lookups with {label}")))
    }
}

fn join(base: &Url, path: &str) -> Result<Url, DemoError> {
    let joined = base.join(path);
    joined.map_err(|e| DemoError::Start(e.to_string()))
}

fn bearer(token: &str) -> Result<HeaderMap, DemoError> {
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let value = value.map_err(|e| DemoError::Start(e.to_string()))?;
    Ok(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
}

fn expect_status(response: &HttpResponse, status: StatusCode) -> Result<(), DemoError> {
    ensure(response.status == status, || {
        format!("expected {status}, received {}", summary(response))
    })
}

/// Returns the clientId that signed a request, and checks that the request does not contain a
/// bearer token.
fn signed_by(request: &ReceivedRequest) -> Result<String, DemoError> {
    ensure(request.scheme == "Hawk", || {
        format!("{} is not signed", request.line)
    })?;
    ensure(!request.bearer, || {
        "the bearer token reached the API".into()
    })?;
    request.client.clone().map_err(DemoError::Tour)
}

/// Returns the status and the beginning of the body.
fn summary(response: &HttpResponse) -> String {
    let body: String = String::from_utf8_lossy(&response.body)
        .chars()
        .take(120)
        .collect();
    format!("{} {body}", response.status.as_u16())
}

/// Returns enough of a token to recognise it.
fn prefix_of(token: &str) -> String {
    format!("{}...", token.chars().take(16).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    fn request() -> ReceivedRequest {
        ReceivedRequest {
            line: "GET /".into(),
            id: String::new(),
            at: UnixMillis(0),
            seed: None,
            scheme: "Hawk".into(),
            bearer: false,
            client: Ok("demo/alice".into()),
            sha256: String::new(),
        }
    }

    #[test]
    fn an_unsigned_or_leaking_request_fails_the_tour() {
        assert_eq!(signed_by(&request()).unwrap(), "demo/alice");
        let unsigned = ReceivedRequest {
            scheme: String::new(),
            ..request()
        };
        let leaking = ReceivedRequest {
            bearer: true,
            ..request()
        };
        let refused = ReceivedRequest {
            client: Err("Bad mac".into()),
            ..request()
        };
        for wrong in [unsigned, leaking, refused] {
            assert!(signed_by(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_unexpected_status_fails_the_tour() {
        let response = HttpResponse {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
        };
        let error = expect_status(&response, StatusCode::OK).unwrap_err();
        assert!(error.to_string().contains("502 {}"), "{error}");
    }
}
