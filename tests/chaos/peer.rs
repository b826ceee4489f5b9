//! The peers: child processes of the suite that can be told to misbehave, stopped and killed.
//!
//! A peer reads commands from stdin, one a line, and acknowledges each with a line on stdout. It
//! exits when stdin ends, so it never outlives the suite.

mod exchange;
mod fault;
mod identity_provider;
mod process;
mod upstream;

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;

use crate::arguments::Role;
use crate::tokens::unix_now;
use fault::Fault;
pub(crate) use process::{Peer, send_signal};
pub(crate) use upstream::{LARGE_PATH, STATIC_CLIENT, sha256};

/// Where a peer listens, from its environment.
const ADDRESS: &str = "CHAOS_ADDRESS";

/// The access token of a Taskcluster client: exchange and upstream derive it from the name, so that
/// neither needs to tell the other.
pub(crate) fn access_token(client_id: &str) -> String {
    let key = hmac::Key::new(
        hmac::HMAC_SHA256,
        b"known to the peers of the chaos suite only",
    );
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, client_id.as_bytes()))
}

/// What can be changed about a peer while it runs.
#[derive(Default)]
struct State {
    fault: Fault,
    /// Added to the real time.
    offset_seconds: i64,
    /// Credentials of earlier epochs are revoked.
    epoch: u64,
    jwks: Value,
    /// Requests on behalf of a forged token.
    hostile: u64,
    /// Clients registered at the identity provider.
    registrations: u64,
}

type Shared = Arc<Mutex<State>>;

/// The peer's own time.
fn peer_time(state: &State) -> Duration {
    let now = i64::try_from(unix_now().as_secs()).unwrap();
    Duration::from_secs(u64::try_from(now + state.offset_seconds).unwrap_or(0))
}

/// Serves until stdin ends.
pub(crate) async fn serve(role: Role) -> ExitCode {
    let address = std::env::var(ADDRESS).unwrap();
    let listener = TcpListener::bind(&address).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let state = Shared::default();
    tokio::spawn(accept(listener, role, Arc::clone(&state)));
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(command)) = commands.next_line().await {
        println!("{}", obey(&command, &state));
    }
    ExitCode::SUCCESS
}

fn obey(command: &str, state: &Shared) -> String {
    let (verb, argument) = command.split_once(' ').unwrap_or((command, ""));
    let mut state = state.lock().unwrap();
    match verb {
        "fault" => state.fault = argument.parse().unwrap(),
        "offset" => state.offset_seconds = argument.parse().unwrap(),
        "jwks" => state.jwks = serde_json::from_str(argument).unwrap(),
        "revoke" => state.epoch += 1,
        "count" => return json!([state.hostile, state.registrations]).to_string(),
        _ => panic!("unknown command {command}"),
    }
    "ok".to_owned()
}

async fn accept(listener: TcpListener, role: Role, state: Shared) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Without it, Nagle's algorithm delays the last piece of each answer.
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        let service = service_fn(move |request| handle(request, role, Arc::clone(&state)));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// An error closes the connection without an answer.
async fn handle(
    request: Request<Incoming>,
    role: Role,
    state: Shared,
) -> Result<Response<fault::Body>, fault::Reset> {
    let (fault, date) = {
        let state = state.lock().unwrap();
        (state.fault.clone(), peer_time(&state))
    };
    if let Some(response) = fault.instead_of_answering().await? {
        return Ok(dated(response, date));
    }
    let response = match role {
        Role::IdentityProvider => identity_provider::answer(&request, &state),
        Role::Exchange => exchange::answer(&request, &state),
        Role::Upstream => upstream::answer(request, &state).await,
    };
    Ok(dated(fault.applied_to(response), date))
}

fn dated(mut response: Response<fault::Body>, time: Duration) -> Response<fault::Body> {
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + time);
    let date = HeaderValue::from_str(&date).unwrap();
    response.headers_mut().insert(header::DATE, date);
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let body = Full::new(Bytes::from(body.to_string()));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// A body that cannot fail, as one that can.
fn infallible(never: Infallible) -> fault::Reset {
    match never {}
}
