//! Trailers, which gRPC needs in both directions (RFC 9110 §6.5, RFC 9113 §8.1).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use hyper::body::Frame;

use super::Pair;
use super::peers::{Peers, channel, read, request};
use crate::known_differences::Differences;

/// A value of a field, as text for the list of differences.
fn value(fields: &HeaderMap, name: &str) -> String {
    let value = fields.get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or("missing").to_owned()
}

async fn differences(peers: &Peers, pair: Pair) -> Result<Vec<String>, String> {
    let mut caller = pair.caller(&peers.gateway).await;
    let (sender, body) = channel();
    let mut call = request(pair, "POST", "/trailers", body);
    let te = HeaderValue::from_static("trailers");
    call.headers_mut().insert("te", te);
    tokio::spawn(async move {
        let data = Bytes::from_static(b"message");
        sender.send(Frame::data(data)).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("1"));
        sender.send(Frame::trailers(trailers)).await.unwrap();
    });
    let answer = caller.send(call).await?;
    let mut found = Vec::new();
    let mut check = |what: &str, seen: String, wanted: &str| {
        if seen != wanted {
            found.push(format!("{what} {seen}"));
        }
    };
    check("status", answer.status().as_str().to_owned(), "200");
    let (body, trailers) = read(answer.into_body()).await?;
    check("body", format!("{body:?}"), "b\"message\"");
    let arrived = peers.arrived.requests.lock().unwrap().pop().unwrap().2;
    let request_trailers = peers.arrived.trailers.lock().unwrap().pop().unwrap();
    // Between other protocols trailers may be dropped (RFC 9110 §6.5.1), but never in part.
    if pair == Pair::new(true, true) {
        check("te", value(&arrived, "te"), "trailers");
        check(
            "request trailer",
            value(&request_trailers, "x-checksum"),
            "1",
        );
        check("grpc-status", value(&trailers, "grpc-status"), "0");
        check("grpc-message", value(&trailers, "grpc-message"), "fine");
    } else if !trailers.is_empty() {
        check("grpc-status", value(&trailers, "grpc-status"), "0");
        check("grpc-message", value(&trailers, "grpc-message"), "fine");
    }
    Ok(found)
}

#[tokio::test]
async fn trailers_pass_between_http2_peers_in_both_directions() {
    let peers = Peers::start().await;
    let mut found = Differences::default();
    for pair in Pair::ALL {
        let what = differences(&peers, pair).await;
        let what = what.unwrap_or_else(|why| vec![why]);
        found.record("trailers and te", pair.name(), what);
    }
    found.assert_known();
}
