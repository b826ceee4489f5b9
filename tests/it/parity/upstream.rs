//! An HTTP/1 upstream that answers with bytes chosen by the request's path.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::answers::{Answer, Then};
use crate::support::wire::{BodyReader, Framing, Reader};

/// The answer to requests for `/next`.
const NEXT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Next: 1\r\n\r\nnext";

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    AtOnce,
    ByteByByte,
}

/// Stopped when dropped.
pub(super) struct ScriptedUpstream {
    url: String,
    _accepting: JoinSet<()>,
}

impl ScriptedUpstream {
    pub(super) async fn start(answers: &[Answer], pace: Pace) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = answers
            .iter()
            .map(|answer| (answer.name, (answer.bytes.clone(), answer.then)));
        let mut script: HashMap<_, _> = script.collect();
        script.insert("next", (NEXT.into(), Then::Keep));
        let script = Arc::new(script);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                connections.spawn(serve(stream, Arc::clone(&script), pace));
            }
        });
        Self {
            url,
            _accepting: accepting,
        }
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }
}

type Script = HashMap<&'static str, (Vec<u8>, Then)>;

async fn serve(stream: TcpStream, script: Arc<Script>, pace: Pace) {
    let (reading, mut writing) = stream.into_split();
    let mut reader = Reader::new(reading);
    // An error ends the connection, as hawkgate does with one that it will not use again.
    while let Ok(Some(head)) = reader.head().await {
        let framing = Framing::of(&head.fields, Framing::Length(0)).unwrap();
        let mut body = BodyReader::new(framing);
        while let Ok(Some(_)) = body.next(&mut reader).await {}
        let path = head.start.split([' ', '?']).nth(1).unwrap();
        let (bytes, then) = &script[path.trim_start_matches('/')];
        let written = match pace {
            Pace::AtOnce => writing.write_all(bytes).await,
            Pace::ByteByByte => one_by_one(&mut writing, bytes).await,
        };
        if written.is_err() || *then == Then::Close {
            return;
        }
    }
}

async fn one_by_one(
    writing: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
) -> std::io::Result<()> {
    for byte in bytes.chunks(1) {
        writing.write_all(byte).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}
