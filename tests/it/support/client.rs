//! HTTP clients: HTTP/1.1 with control over every byte, and HTTP/2, over TCP, TLS and Unix sockets.

use std::io;

use bytes::Bytes;
use hawkgate::proxy::settings::Address;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use super::tls::{Identity, TestCa};
use super::wait::within;
use super::wire::{BodyReader, Fields, Framing, Head, Reader, Reading, Stream, Writing, invalid};

/// Opens a plain connection.
pub(crate) async fn connect(address: &Address) -> io::Result<Stream> {
    Ok(match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// A request body, with its framing on HTTP/1.1.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    None,
    /// With `Content-Length`.
    Sized(Bytes),
    /// In chunks of this many bytes (on HTTP/2, without `Content-Length`).
    Chunked(Bytes, usize),
}

/// A request to send.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Raw path and query.
    pub(crate) target: String,
    /// `Host`, `:authority`.
    pub(crate) authority: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Body,
    /// Sends `Expect: 100-continue` and waits for it before sending the body.
    pub(crate) expect: bool,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            authority: "localhost".into(),
            fields: Vec::new(),
            body: Body::None,
            expect: false,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str, body: impl Into<Bytes>) -> Self {
        Self::new("POST", target).body(Body::Sized(body.into()))
    }

    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn expect(mut self) -> Self {
        self.expect = true;
        self
    }

    /// The HTTP/1.1 head, including the framing headers.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        head += &format!("Host: {}\r\n", self.authority);
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        match &self.body {
            Body::None => {}
            Body::Sized(body) => head += &format!("Content-Length: {}\r\n", body.len()),
            Body::Chunked(..) => head += "Transfer-Encoding: chunked\r\n",
        }
        if self.expect {
            head += "Expect: 100-continue\r\n";
        }
        head += "\r\n";
        head.into_bytes()
    }

    /// The HTTP/1.1 body as sent.
    fn wire_body(&self) -> Vec<u8> {
        match &self.body {
            Body::None => Vec::new(),
            Body::Sized(body) => body.to_vec(),
            Body::Chunked(body, size) => {
                let mut wire: Vec<u8> = body
                    .chunks((*size).max(1))
                    .flat_map(super::wire::chunk)
                    .collect();
                wire.extend_from_slice(b"0\r\n\r\n");
                wire
            }
        }
    }
}

/// A complete response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
    /// Status codes of preceding 1xx responses.
    pub(crate) interim: Vec<u16>,
    pub(crate) trailers: Fields,
    /// The exact bytes of the head (HTTP/1.1 only).
    pub(crate) raw_head: Bytes,
    /// Whether the whole request body was sent.
    pub(crate) sent_all: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    /// `X-Hawkgate-Error`: the reason of an error response that hawkgate generated itself.
    pub(crate) fn error_reason(&self) -> Option<&str> {
        self.header("x-hawkgate-error")
    }

    pub(crate) fn status_and_reason(&self) -> (u16, Option<&str>) {
        (self.status, self.error_reason())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(e) => panic!("{e} in {} {:?}", self.status, self.text()),
        }
    }
}

/// One HTTP/1.1 connection.
pub(crate) struct Client {
    reader: Reader<Reading>,
    writer: Writing,
}

impl Client {
    pub(crate) fn over(stream: Stream) -> Self {
        let (reading, writer) = tokio::io::split(stream);
        Self {
            reader: Reader::new(reading),
            writer,
        }
    }

    pub(crate) async fn connect(address: &Address) -> Self {
        Self::over(connect(address).await.unwrap())
    }

    /// With TLS, offering HTTP/1.1 only.
    pub(crate) async fn connect_tls(
        address: &Address,
        ca: &TestCa,
        name: &str,
        identity: Option<&Identity>,
    ) -> io::Result<Self> {
        let stream = connect(address).await?;
        let (stream, _) = ca.connect(stream, name, &["http/1.1"], identity).await?;
        Ok(Self::over(stream))
    }

    /// Sends raw bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// Shuts down the sending side.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }

    /// Sends `request` and reads the response; an early response is read while the body is still being
    /// sent.
    pub(crate) async fn request(&mut self, request: &Request) -> io::Result<Response> {
        within(&request.target, self.exchange(request)).await
    }

    async fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        self.send(&request.head()).await?;
        let mut interim = Vec::new();
        if request.expect {
            let head = self.next_head().await?;
            if status(&head)? != 100 {
                let mut response = self.complete(head, &request.method, interim).await?;
                response.sent_all = false;
                return Ok(response);
            }
            interim.push(100);
        }
        let body = request.wire_body();
        let Self { reader, writer } = self;
        let write = async {
            writer.write_all(&body).await?;
            writer.flush().await
        };
        let read = read_response(reader, &request.method, interim);
        let (written, response) = write_and_read(write, read).await;
        let mut response = response?;
        response.sent_all = written.is_some_and(|result| result.is_ok());
        Ok(response)
    }

    /// Reads one complete response to a request with `method`, and interim responses before it.
    pub(crate) async fn response(&mut self, method: &str) -> io::Result<Response> {
        within(
            "a response",
            read_response(&mut self.reader, method, Vec::new()),
        )
        .await
    }

    /// Reads one head: of an interim response, or of one whose body the test does not read.
    pub(crate) async fn next_head(&mut self) -> io::Result<Head> {
        let head = within("a head", self.reader.head()).await?;
        head.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn complete(
        &mut self,
        head: Head,
        method: &str,
        interim: Vec<u16>,
    ) -> io::Result<Response> {
        read_body(&mut self.reader, head, method, interim).await
    }

    /// Raw bytes as they arrive; `None` at the end of the connection.
    pub(crate) async fn raw(&mut self) -> io::Result<Option<Bytes>> {
        within("raw bytes", self.reader.raw()).await
    }

    /// Everything until the connection ends.
    pub(crate) async fn rest(&mut self) -> io::Result<Bytes> {
        within("the end of the connection", self.reader.rest()).await
    }
}

/// Runs both; stops writing once a response has arrived that closes the connection.
async fn write_and_read<W, R>(write: W, read: R) -> (Option<W::Output>, R::Output)
where
    W: Future,
    R: Future<Output = io::Result<Response>>,
{
    let mut write = std::pin::pin!(write);
    let mut read = std::pin::pin!(read);
    let mut written = None;
    let response = loop {
        tokio::select! {
            result = &mut write, if written.is_none() => written = Some(result),
            response = &mut read => break response,
        }
    };
    let closing = response.as_ref().map_or(true, |response| {
        response
            .header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"))
    });
    if written.is_none() && !closing {
        written = Some(write.await);
    }
    (written, response)
}

fn status(head: &Head) -> io::Result<u16> {
    head.start
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid("status line"))
}

async fn read_response(
    reader: &mut Reader<Reading>,
    method: &str,
    mut interim: Vec<u16>,
) -> io::Result<Response> {
    loop {
        let head = reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match status(&head)? {
            101 => return read_body(reader, head, method, interim).await,
            code @ 100..200 => interim.push(code),
            _ => return read_body(reader, head, method, interim).await,
        }
    }
}

async fn read_body(
    reader: &mut Reader<Reading>,
    head: Head,
    method: &str,
    interim: Vec<u16>,
) -> io::Result<Response> {
    let status = status(&head)?;
    let framing = if method == "HEAD" || matches!(status, 101 | 204 | 304) {
        Framing::Length(0)
    } else {
        Framing::of(&head.fields, Framing::UntilClose)?
    };
    let mut body = BodyReader::new(framing);
    let mut whole = Vec::new();
    while let Some(piece) = body.next(reader).await? {
        whole.extend_from_slice(&piece);
    }
    Ok(Response {
        status,
        fields: head.fields,
        body: whole.into(),
        interim,
        trailers: body.trailers,
        raw_head: head.raw,
        sent_all: true,
    })
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Http2Client {
    sender: h2::client::SendRequest<Bytes>,
    scheme: &'static str,
}

impl Http2Client {
    /// With prior knowledge (`scheme` "http"), or over a TLS stream that negotiated `h2`.
    pub(crate) async fn over(stream: Stream, scheme: &'static str) -> Self {
        let (sender, connection) = within("h2 handshake", h2::client::handshake(stream))
            .await
            .unwrap();
        tokio::spawn(async move {
            // Connection errors also surface as errors of the streams.
            let _ = connection.await;
        });
        Self { sender, scheme }
    }

    pub(crate) async fn connect(address: &Address) -> Self {
        Self::over(connect(address).await.unwrap(), "http").await
    }

    /// With TLS; the server must negotiate `h2`.
    pub(crate) async fn connect_tls(address: &Address, ca: &TestCa, name: &str) -> Self {
        let stream = connect(address).await.unwrap();
        let (stream, agreed) = ca.connect(stream, name, &["h2"], None).await.unwrap();
        assert_eq!(agreed.as_deref(), Some("h2"), "ALPN");
        Self::over(stream, "https").await
    }

    /// Whether the server has sent GOAWAY, so that no new request may be sent.
    pub(crate) async fn has_received_goaway(&self) -> bool {
        self.sender.clone().ready().await.is_err()
    }

    pub(crate) async fn request(&self, request: &Request) -> Result<Response, h2::Error> {
        within(&request.target, self.exchange(request)).await
    }

    async fn exchange(&self, request: &Request) -> Result<Response, h2::Error> {
        let uri = format!("{}://{}{}", self.scheme, request.authority, request.target);
        let mut head = http::Request::builder()
            .method(request.method.as_str())
            .uri(uri);
        for (name, value) in &request.fields {
            head = head.header(name.to_ascii_lowercase(), value);
        }
        if let Body::Sized(body) = &request.body {
            head = head.header("content-length", body.len());
        }
        if request.expect {
            head = head.header("expect", "100-continue");
        }
        let (body, piece) = match &request.body {
            Body::None => (Bytes::new(), 1),
            Body::Sized(body) => (body.clone(), 64 * 1024),
            Body::Chunked(body, size) => (body.clone(), *size),
        };
        let empty = matches!(request.body, Body::None);
        let mut sender = self.sender.clone().ready().await?;
        let (mut response, stream) = sender.send_request(head.body(()).unwrap(), empty)?;
        let mut interim = Vec::new();
        if request.expect {
            let head = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
            let Some(head) = head.transpose()? else {
                let mut response = read_h2(response, interim).await?;
                response.sent_all = false;
                return Ok(response);
            };
            interim.push(head.status().as_u16());
        }
        let write = async {
            if empty {
                Ok(())
            } else {
                send_pieces(stream, body, piece).await
            }
        };
        let (sent, response) = tokio::join!(write, read_h2(response, interim));
        let mut response = response?;
        response.sent_all = sent.is_ok();
        Ok(response)
    }
}

/// Sends `body` as flow control allows.
async fn send_pieces(
    mut stream: h2::SendStream<Bytes>,
    mut body: Bytes,
    piece: usize,
) -> Result<(), h2::Error> {
    while !body.is_empty() {
        let want = body.len().min(piece.max(1));
        stream.reserve_capacity(want);
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let granted = granted.ok_or(h2::Reason::CANCEL)??;
        if granted > 0 {
            stream.send_data(body.split_to(granted.min(want)), false)?;
        }
    }
    stream.send_data(Bytes::new(), true)
}

/// Reads a response that follows the `interim` ones.
async fn read_h2(
    response: h2::client::ResponseFuture,
    interim: Vec<u16>,
) -> Result<Response, h2::Error> {
    let (parts, mut stream) = response.await?.into_parts();
    let mut whole = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(Response {
        status: parts.status.as_u16(),
        fields: fields(&parts.headers),
        body: whole.into(),
        interim,
        trailers: fields(&trailers),
        raw_head: Bytes::new(),
        sent_all: true,
    })
}

pub(crate) fn fields(headers: &http::HeaderMap) -> Fields {
    Fields(
        headers
            .iter()
            .map(|(n, v)| {
                (
                    n.to_string(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect(),
    )
}
