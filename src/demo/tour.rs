//! The tour: real requests over real sockets, each checked at every hop and told.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use url::Url;

use super::api::{self, Seen};
use super::identity::Life;
use super::{AUDIENCE, DemoError, Paint, Stage};
use crate::remote::http_client::HttpResponse;

const READ: &str = "/api/auth/v1/scopes/current";
const WRITE: &str = "/api/hooks/v1/hooks/demo/greet/trigger";
const HOUR: Duration = Duration::from_hours(1);
/// How often something is asked for that takes its time, a tenth of a second apart.
const PATIENCE: u32 = 100;

const BETWEEN: &str = "hawkgate -> API";
const FROM_YOU: &str = "you -> hawkgate";
const TO_YOU: &str = "hawkgate -> you";

/// Performs the tour and tells it to `out`.
///
/// # Errors
/// When any step does not go as it must, or `out` cannot be written to.
pub async fn tour(stage: &Stage, paint: Paint, out: &mut dyn Write) -> Result<(), DemoError> {
    let mut guide = Guide { stage, paint, out };
    guide.introduce()?;
    guide.wait_until_ready().await?;
    let token = stage.identity.token(AUDIENCE, Life::For(HOUR))?;
    guide.swap(&token).await?;
    guide.revoked(&token).await?;
    guide.refused().await?;
    guide.finish(&token)
}

/// Says how to go on and waits for Ctrl-C.
///
/// # Errors
/// When signals cannot be waited for.
pub async fn stay(_: &Stage, paint: Paint, out: &mut dyn Write) -> Result<(), DemoError> {
    let text = paint.title("All three stay up. Ctrl-C ends them.");
    writeln!(out, "{text}")?;
    out.flush()?;
    tokio::signal::ctrl_c().await?;
    writeln!(out)?;
    Ok(())
}

struct Guide<'a> {
    stage: &'a Stage,
    paint: Paint,
    out: &'a mut dyn Write,
}

fn ensure(good: bool, what: impl FnOnce() -> String) -> Result<(), DemoError> {
    if good {
        Ok(())
    } else {
        Err(DemoError::Tour(what()))
    }
}

impl Guide<'_> {
    fn introduce(&mut self) -> Result<(), DemoError> {
        let title = self.paint.title("hawkgate demo");
        writeln!(
            self.out,
            "{title}: three parties, all in this process, on loopback\n"
        )?;
        let stage = self.stage;
        let api = stage.api.url.clone();
        self.party(
            "identity provider",
            &stage.identity.url,
            "signs you in: issues bearer tokens",
        )?;
        self.party(
            "API",
            &api,
            "knows nothing of bearer tokens: wants each request signed with Hawk",
        )?;
        self.party(
            "hawkgate",
            &stage.hawkgate,
            "stands in front of the API and swaps the one for the other",
        )
    }

    fn party(&mut self, name: &str, url: &Url, what: &str) -> Result<(), DemoError> {
        let url = url.as_str().trim_end_matches('/');
        let name = self.paint.party(name);
        Ok(writeln!(self.out, "  {name} {url}  {what}")?)
    }

    fn title(&mut self, text: &str) -> Result<(), DemoError> {
        let title = self.paint.title(text);
        Ok(writeln!(self.out, "\n{title}")?)
    }

    fn hop(&mut self, who: &str, what: &str) -> Result<(), DemoError> {
        let who = self.paint.party(who);
        Ok(writeln!(self.out, "  {who} {what}")?)
    }

    fn good(&mut self, text: &str) -> Result<(), DemoError> {
        let good = self.paint.good("good:");
        Ok(writeln!(self.out, "  {good} {text}")?)
    }

    async fn wait_until_ready(&self) -> Result<(), DemoError> {
        let ready = join(&self.stage.admin, "/readyz")?;
        for _ in 0..PATIENCE {
            let answer = self.stage.client.get(&ready, HeaderMap::new()).await;
            if answer.is_ok_and(|a| a.status == StatusCode::OK) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(DemoError::Start("hawkgate does not become ready".into()))
    }

    async fn swap(&mut self, token: &str) -> Result<(), DemoError> {
        self.title("1. A swap: you bring a bearer token, the API gets a signed request")?;
        let fetched = self.lookups("fetched").await?;
        let answer = self.get(token).await?;
        let seen = self.arrived(1)?;
        expect_status(&answer, StatusCode::OK)?;
        self.counted("fetched", fetched + 1).await?;
        ensure(self.stage.api.exchanges() == 1, || {
            "not exactly one exchange".into()
        })?;
        let client = signed_by(&seen[0])?;
        self.hop(FROM_YOU, &format!("GET {READ}"))?;
        self.hop(
            "",
            &format!(
                "Authorization: Bearer {} ({} characters)",
                start_of(token),
                token.len()
            ),
        )?;
        self.hop(
            "hawkgate",
            "checks the token's signature, issuer, audience and expiry;",
        )?;
        self.hop(
            "",
            "trades it for credentials of a quarter of an hour (lookup: fetched)",
        )?;
        self.hop(BETWEEN, &seen[0].what)?;
        self.hop(
            "",
            &format!("Authorization: Hawk id=\"{client}\", ... and no bearer token anywhere"),
        )?;
        self.hop(TO_YOU, &shown(&answer))?;
        let hits = self.lookups("hit").await?;
        expect_status(&self.get(token).await?, StatusCode::OK)?;
        signed_by(&self.arrived(1)?[0])?;
        self.counted("hit", hits + 1).await?;
        ensure(self.stage.api.exchanges() == 1, || {
            "a second exchange took place".into()
        })?;
        self.good("asked again, hawkgate used the credentials it still had (lookup: hit)")
    }

    async fn revoked(&mut self, token: &str) -> Result<(), DemoError> {
        self.title("2. Revoked credentials: the API says 401, you never notice")?;
        self.stage.api.revoke()?;
        let before = self.stage.api.exchanges();
        let body = Bytes::from_static(br#"{"greeting": "hello", "to": "everybody"}"#);
        let mut headers = bearer(token)?;
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        let url = join(&self.stage.hawkgate, WRITE)?;
        let answer = self.stage.client.post(&url, headers, body.clone()).await?;
        expect_status(&answer, StatusCode::OK)?;
        let seen = self.arrived(2)?;
        let Err(refusal) = &seen[0].client else {
            return Err(DemoError::Tour("revoked credentials were accepted".into()));
        };
        let client = signed_by(&seen[1])?;
        let hash = api::sha256(&body);
        ensure(seen.iter().all(|s| s.sha256 == hash), || {
            "the body changed on its way".into()
        })?;
        let exchanges = self.stage.api.exchanges() - before;
        ensure(exchanges == 1, || {
            format!("{exchanges} exchanges instead of one")
        })?;
        self.hop("API", "withdraws every credential that it has given out")?;
        self.hop(
            FROM_YOU,
            &format!("POST {WRITE}, {} bytes of JSON", body.len()),
        )?;
        self.hop(
            BETWEEN,
            &format!("{} with the credentials it has", seen[0].what),
        )?;
        self.hop("API -> hawkgate", &format!("401 {refusal}"))?;
        self.hop(
            "hawkgate",
            "drops them, trades the token once more, signs anew",
        )?;
        self.hop(
            BETWEEN,
            &format!(
                "the same POST again, as {client}, body SHA-256 {}...",
                &hash[..12]
            ),
        )?;
        self.hop(TO_YOU, &shown(&answer))?;
        self.good("one exchange, the same body twice, and you saw only the 200")
    }

    async fn refused(&mut self) -> Result<(), DemoError> {
        self.title("3. Refused: a token that is no good never reaches the API")?;
        let identity = &self.stage.identity;
        let foreign = identity.token("another-api", Life::For(HOUR))?;
        let expired = identity.token(AUDIENCE, Life::EndedAgo(HOUR))?;
        let cases = [
            ("a token for another API", foreign, "token_audience"),
            ("a token that expired an hour ago", expired, "token_expired"),
        ];
        let exchanges = self.stage.api.exchanges();
        for (what, token, reason) in cases {
            let answer = self.get(&token).await?;
            expect_status(&answer, StatusCode::UNAUTHORIZED)?;
            let said = answer.header(&HeaderName::from_static("x-hawkgate-error"));
            ensure(said == Some(reason), || {
                format!("{what}: X-Hawkgate-Error is {said:?}")
            })?;
            self.hop(FROM_YOU, &format!("GET {READ} with {what}"))?;
            self.hop(TO_YOU, &format!("401, X-Hawkgate-Error: {reason}"))?;
        }
        self.arrived(0)?;
        ensure(self.stage.api.exchanges() == exchanges, || {
            "a refused token was traded".into()
        })?;
        self.good("the API saw neither of them")
    }

    fn finish(&mut self, token: &str) -> Result<(), DemoError> {
        let hawkgate = self.stage.hawkgate.as_str().trim_end_matches('/');
        let api = self.stage.api.url.as_str().trim_end_matches('/');
        let admin = self.stage.admin.as_str().trim_end_matches('/');
        self.title("Try it yourself (the token is good for an hour, and for nothing else)")?;
        writeln!(
            self.out,
            "  curl -i -H 'Authorization: Bearer {token}' {hawkgate}{READ}"
        )?;
        writeln!(
            self.out,
            "  curl -X POST {api}{}   # withdraws the credentials: then the first again",
            api::REVOKE
        )?;
        writeln!(
            self.out,
            "  curl {admin}/metrics   # what hawkgate counted\n"
        )?;
        Ok(self.out.flush()?)
    }

    async fn get(&self, token: &str) -> Result<HttpResponse, DemoError> {
        let url = join(&self.stage.hawkgate, READ)?;
        Ok(self.stage.client.get(&url, bearer(token)?).await?)
    }

    /// What reached the API since the last time: exactly `count` requests.
    fn arrived(&self, count: usize) -> Result<Vec<Seen>, DemoError> {
        let seen = self.stage.api.take_seen();
        let got = seen.len();
        ensure(got == count, || {
            format!("{got} requests reached the API instead of {count}")
        })?;
        Ok(seen)
    }

    /// Waits until so many lookups with `result` are counted: a request is recorded when
    /// it is over, which is a moment after its answer has arrived.
    async fn counted(&self, result: &str, due: u64) -> Result<(), DemoError> {
        let mut count = self.lookups(result).await?;
        for _ in 0..PATIENCE {
            if count >= due {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            count = self.lookups(result).await?;
        }
        ensure(count == due, || {
            format!("{count} lookups are counted as {result} instead of {due}")
        })
    }

    /// How many credential lookups ended with `result`, by hawkgate's own metrics.
    async fn lookups(&self, result: &str) -> Result<u64, DemoError> {
        let url = join(&self.stage.admin, "/metrics")?;
        let answer = self.stage.client.get(&url, HeaderMap::new()).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
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

fn expect_status(answer: &HttpResponse, status: StatusCode) -> Result<(), DemoError> {
    ensure(answer.status == status, || {
        format!("{status} was due, but came {}", shown(answer))
    })
}

/// The client that signed; the request must have come signed and without a bearer token.
fn signed_by(seen: &Seen) -> Result<String, DemoError> {
    ensure(seen.scheme == "Hawk", || {
        format!("{} came unsigned", seen.what)
    })?;
    ensure(!seen.bearer, || "the bearer token reached the API".into())?;
    seen.client.clone().map_err(DemoError::Tour)
}

fn shown(answer: &HttpResponse) -> String {
    let body: String = String::from_utf8_lossy(&answer.body)
        .chars()
        .take(120)
        .collect();
    format!("{} {body}", answer.status.as_u16())
}

/// Enough of a token to recognise it by.
fn start_of(token: &str) -> String {
    format!("{}...", token.chars().take(16).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            what: "GET /".into(),
            scheme: "Hawk".into(),
            bearer: false,
            client: Ok("demo/alice".into()),
            sha256: String::new(),
        }
    }

    #[test]
    fn a_request_that_came_otherwise_than_told_ends_the_tour() {
        assert_eq!(signed_by(&seen()).unwrap(), "demo/alice");
        let unsigned = Seen {
            scheme: String::new(),
            ..seen()
        };
        let leaked = Seen {
            bearer: true,
            ..seen()
        };
        let refused = Seen {
            client: Err("Bad mac".into()),
            ..seen()
        };
        for wrong in [unsigned, leaked, refused] {
            assert!(signed_by(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn another_status_than_due_ends_the_tour() {
        let answer = HttpResponse {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
        };
        let error = expect_status(&answer, StatusCode::OK).unwrap_err();
        assert!(error.to_string().contains("502 {}"), "{error}");
    }
}
