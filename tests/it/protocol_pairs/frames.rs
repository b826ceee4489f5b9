//! An HTTP/2 upstream that is scripted frame by frame (RFC 9113).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::tls::TestCa;
use crate::support::wire::Stream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const INTERNAL_ERROR: u32 = 2;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;

/// What the upstream does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// 200 after the body.
    Answer,
    /// RST_STREAM with this code, as soon as the head has arrived.
    Reset(u32),
    /// The same after the body.
    ResetAfterBody(u32),
    /// GOAWAY with the last stream before this one.
    GoawayBefore,
    /// GOAWAY that includes this stream, and the end of the connection after the body.
    GoawayIncluding,
    /// GOAWAY that includes this stream, and the answer.
    GoawayAndAnswer,
    /// A whole answer before the body, and RST_STREAM with NO_ERROR (RFC 9113 §8.1).
    AnswerAndStop,
    /// The head of an answer, and RST_STREAM with REFUSED_STREAM.
    HeadAndReset,
    /// An answer whose content is shorter than its `Content-Length`.
    ShortAnswer,
}

/// A request that has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrived {
    pub(super) body: Vec<u8>,
    pub(super) complete: bool,
}

#[derive(Default)]
struct Script {
    acts: Mutex<VecDeque<Act>>,
    arrived: Mutex<Vec<Arrived>>,
}

impl Script {
    /// A request has arrived: what to do with it, and its place among those that arrived.
    fn next(&self) -> (Act, usize) {
        let mut arrived = self.arrived.lock().unwrap();
        arrived.push(Arrived::default());
        let act = self.acts.lock().unwrap().pop_front();
        (act.unwrap_or(Act::Answer), arrived.len() - 1)
    }
}

/// Stopped when dropped.
pub(super) struct FrameUpstream {
    pub(super) url: String,
    script: Arc<Script>,
    _accepting: JoinSet<()>,
}

impl FrameUpstream {
    pub(super) async fn start(ca: &TestCa) -> Self {
        let acceptor = TestCa::acceptor(&ca.issue(&["127.0.0.1"]), &["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let script = Arc::new(Script::default());
        let mut accepting = JoinSet::new();
        let shared = Arc::clone(&script);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, script) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let stream = acceptor.accept(tcp).await.unwrap();
                    let connection = Connection {
                        stream: Box::new(stream),
                        script,
                        streams: HashMap::new(),
                    };
                    // An error ends the connection, as the script may.
                    let _ = connection.serve().await;
                });
            }
        });
        Self {
            url,
            script,
            _accepting: accepting,
        }
    }

    /// Begins a case: what is done with the next requests; those after them are answered.
    pub(super) fn script(&self, acts: &[Act]) {
        *self.script.acts.lock().unwrap() = acts.iter().copied().collect();
        self.script.arrived.lock().unwrap().clear();
    }

    /// The requests of this case.
    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.script.arrived.lock().unwrap().clone()
    }
}

struct Connection {
    stream: Stream,
    script: Arc<Script>,
    /// What is done with each open stream, and its place among those that arrived.
    streams: HashMap<u32, (Act, usize)>,
}

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        let mut preface = [0; 24];
        self.stream.read_exact(&mut preface).await?;
        self.write(SETTINGS, 0, 0, &[]).await?;
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, id @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await?;
            let id = u32::from_be_bytes(id);
            match kind {
                SETTINGS if flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]).await?,
                PING if flags & ACK == 0 => self.write(PING, ACK, 0, &payload).await?,
                HEADERS if !self.streams.contains_key(&id) => {
                    let (act, index) = self.script.next();
                    self.streams.insert(id, (act, index));
                    self.head(id, act).await?;
                    if flags & END_STREAM != 0 {
                        self.end(id).await?;
                    }
                }
                DATA => self.data(id, flags, &payload).await?,
                _ => {}
            }
        }
    }

    /// The head of a request has arrived.
    async fn head(&mut self, id: u32, act: Act) -> io::Result<()> {
        match act {
            Act::Reset(code) => self.reset(id, code).await,
            // Closing the connection here could discard the frame on its way.
            Act::GoawayBefore => self.goaway(id - 1).await,
            Act::GoawayIncluding | Act::GoawayAndAnswer => self.goaway(id).await,
            Act::AnswerAndStop => {
                self.answer(id, "2", b"ok").await?;
                self.reset(id, NO_ERROR).await
            }
            Act::HeadAndReset => {
                self.write(HEADERS, END_HEADERS, id, &block("2")).await?;
                self.reset(id, REFUSED_STREAM).await
            }
            Act::Answer | Act::ResetAfterBody(_) | Act::ShortAnswer => Ok(()),
        }
    }

    async fn data(&mut self, id: u32, flags: u8, payload: &[u8]) -> io::Result<()> {
        let Some((_, index)) = self.streams.get(&id) else {
            return Ok(());
        };
        self.script.arrived.lock().unwrap()[*index]
            .body
            .extend_from_slice(payload);
        if !payload.is_empty() {
            let more = u32::try_from(payload.len()).unwrap().to_be_bytes();
            self.write(WINDOW_UPDATE, 0, 0, &more).await?;
            self.write(WINDOW_UPDATE, 0, id, &more).await?;
        }
        if flags & END_STREAM != 0 {
            self.end(id).await?;
        }
        Ok(())
    }

    /// The whole request has arrived.
    async fn end(&mut self, id: u32) -> io::Result<()> {
        let (act, index) = self.streams[&id];
        self.script.arrived.lock().unwrap()[index].complete = true;
        match act {
            Act::Answer | Act::GoawayAndAnswer => self.answer(id, "2", b"ok").await,
            Act::ShortAnswer => self.answer(id, "9", b"ok").await,
            Act::ResetAfterBody(code) => self.reset(id, code).await,
            Act::GoawayIncluding => {
                self.stream.shutdown().await?;
                Err(io::ErrorKind::Other.into())
            }
            _ => Ok(()),
        }
    }

    async fn answer(&mut self, id: u32, length: &str, body: &[u8]) -> io::Result<()> {
        self.write(HEADERS, END_HEADERS, id, &block(length)).await?;
        self.write(DATA, END_STREAM, id, body).await
    }

    async fn reset(&mut self, id: u32, code: u32) -> io::Result<()> {
        self.write(RST_STREAM, 0, id, &code.to_be_bytes()).await
    }

    async fn goaway(&mut self, last: u32) -> io::Result<()> {
        let payload = [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
        self.write(GOAWAY, 0, 0, &payload).await
    }

    async fn write(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }
}

/// `:status: 200` and a `Content-Length` of one digit, as HPACK (RFC 7541: index 8, and a literal
/// without indexing with the name at index 28).
fn block(length: &str) -> Vec<u8> {
    let mut block = vec![0x88, 0x0f, 0x0d, 0x01];
    block.extend_from_slice(length.as_bytes());
    block
}
