//! Answers that arrive before the end of an upload.

use bytes::Bytes;
use hyper::body::Frame;

use super::Pair;
use super::peers::{Body, MIB, Peers, channel, full, read, request};
use crate::known_differences::Differences;

/// More than all buffers on the way hold together.
const UPLOAD: usize = 32 * MIB;

/// What the upstream does with the rest of the upload.
const RESTS: [&str; 3] = ["drain", "hold", "drop"];

/// A large body that is produced as it can be sent.
fn upload() -> Body {
    let (sender, body) = channel();
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    tokio::spawn(async move {
        for _ in 0..UPLOAD / piece.len() {
            // The caller stops when it has its answer.
            if sender.send(Frame::data(piece.clone())).await.is_err() {
                return;
            }
        }
    });
    body
}

async fn differences(
    peers: &Peers,
    pair: Pair,
    path: &str,
    status: u16,
    sized: bool,
) -> Vec<String> {
    let mut caller = pair.caller(&peers.gateway).await;
    let mut upload = request(pair, "POST", path, upload());
    if sized {
        let length = UPLOAD.to_string().parse().unwrap();
        upload.headers_mut().insert("content-length", length);
    }
    let before = peers.arrived.count(path);
    let mut found = Vec::new();
    match caller.send(upload).await {
        Ok(answer) => {
            if answer.status() != status {
                found.push(format!("status {}", answer.status().as_u16()));
            }
            match read(answer.into_body()).await {
                Ok((body, _)) if body == "early" => {}
                Ok(_) => found.push("another body".into()),
                Err(why) => found.push(why),
            }
        }
        Err(why) => found.push(why),
    }
    let attempts = peers.arrived.count(path) - before;
    if attempts != 1 {
        found.push(format!("{attempts} attempts"));
    }
    // Others are served as before.
    let mut other = pair.caller(&peers.gateway).await;
    let next = request(pair, "POST", "/next", full("body"));
    match other.send(next).await {
        Ok(answer) if answer.status() == 200 => {}
        _ => found.push("no next answer".into()),
    }
    found
}

#[tokio::test]
async fn an_early_answer_is_passed_on_before_the_upload_has_ended() {
    let peers = Peers::start().await;
    let mut found = Differences::default();
    for pair in Pair::ALL {
        for status in [200, 401, 413] {
            for rest in RESTS {
                // A connection that is closed with unread bytes may lose what was sent before.
                if rest == "drop" && !pair.http2_upstream {
                    continue;
                }
                let framings = if rest == "hold" {
                    &[true][..]
                } else {
                    &[true, false]
                };
                for &sized in framings {
                    let path = format!("/early/{status}/{rest}");
                    let what = differences(&peers, pair, &path, status, sized).await;
                    let framing = if sized { "sized" } else { "unsized" };
                    let case = format!("early {status}, {rest}, {framing}");
                    found.record(&case, pair.name(), what);
                }
            }
        }
    }
    found.assert_known();
}
