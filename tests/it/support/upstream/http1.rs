//! HTTP/1.1 for the fake upstream.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::{AfterReply, BodySum, ReceivedRequest, Reply, ReplyAt, ReplyBody, Shared};
use crate::support::wire::{BodyReader, Framing, Head, Reader, Reading, Stream, Writing, chunk};

struct Connection {
    reader: Reader<Reading>,
    writer: Writing,
    shared: Arc<Shared>,
    number: usize,
}

pub(super) async fn serve(stream: Stream, shared: Arc<Shared>, number: usize) {
    let (reading, writer) = tokio::io::split(stream);
    let mut connection = Connection {
        reader: Reader::new(reading),
        writer,
        shared,
        number,
    };
    // An error ends the connection; the recorded attempt shows how far it got.
    while let Ok(true) = connection.request().await {}
    let _ = connection.writer.shutdown().await;
}

impl Connection {
    /// Serves one request; true if another may follow.
    async fn request(&mut self) -> io::Result<bool> {
        let Some(head) = self.reader.head().await? else {
            return Ok(false);
        };
        let expects = head.fields.first("expect").is_some();
        let closes = wants_close(&head);
        let mut body = BodyReader::new(Framing::of(&head.fields, Framing::Length(0))?);
        let received = received_request(head, self.number);
        let no_body = received.method == "HEAD";
        let (index, reply) = self.shared.arrived(received);
        let mut sum = BodySum::new(&self.shared, index);

        if expects && reply.when != ReplyAt::BeforeBody {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let whole = match reply.when {
            ReplyAt::BeforeBody => false,
            ReplyAt::AfterBytes(bytes) => self.read(&mut body, &mut sum, bytes).await?,
            ReplyAt::AfterBody => self.read(&mut body, &mut sum, u64::MAX).await?,
        };
        if let Some(latch) = &reply.latch {
            latch.wait().await;
        }
        let rest = reply.rest;
        // Without a 100 the body may never arrive, so the connection cannot be reused.
        let ends = closes || (!whole && (rest == AfterReply::Close || expects));
        let ends = self.respond(index, reply, no_body, ends).await? || ends;
        if !whole && rest == AfterReply::Drain {
            self.read(&mut body, &mut sum, u64::MAX).await?;
        }
        Ok(!ends)
    }

    /// Reads until `enough` bytes have arrived; true if the body is complete.
    async fn read(
        &mut self,
        body: &mut BodyReader,
        sum: &mut BodySum,
        enough: u64,
    ) -> io::Result<bool> {
        while sum.received < enough {
            let Some(piece) = body.next(&mut self.reader).await? else {
                sum.end();
                return Ok(true);
            };
            sum.add(&piece);
        }
        Ok(false)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// Sends the reply; true if the connection ends with it.
    async fn respond(
        &mut self,
        index: usize,
        reply: Reply,
        no_body: bool,
        close: bool,
    ) -> io::Result<bool> {
        let status = reply.status;
        for code in &reply.interim {
            self.write(format!("HTTP/1.1 {code} Interim\r\nX-Interim: {code}\r\n\r\n").as_bytes())
                .await?;
        }
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in &reply.fields {
            head += &format!("{name}: {value}\r\n");
        }
        if close {
            head += "Connection: close\r\n";
        }
        self.shared.update(index, |a| a.status = status);
        match reply.payload {
            ReplyBody::Raw(bytes) => {
                self.write(&bytes).await?;
                Ok(true)
            }
            ReplyBody::Echo => {
                head += "Connection: Upgrade\r\n\r\n";
                self.write(head.as_bytes()).await?;
                self.echo().await?;
                Ok(true)
            }
            ReplyBody::Whole(body) => {
                self.whole(head, status, &body, no_body).await?;
                Ok(false)
            }
            ReplyBody::Streamed(mut pieces) => {
                head += "Transfer-Encoding: chunked\r\n\r\n";
                self.write(head.as_bytes()).await?;
                while let Some(piece) = pieces.recv().await {
                    self.write(&chunk(&piece)).await?;
                }
                self.write(b"0\r\n\r\n").await?;
                Ok(false)
            }
        }
    }

    async fn whole(
        &mut self,
        mut head: String,
        status: u16,
        body: &Bytes,
        no_body: bool,
    ) -> io::Result<()> {
        let framed = !matches!(status, 204 | 304);
        if framed {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        if framed && !no_body {
            bytes.extend_from_slice(body);
        }
        self.write(&bytes).await
    }

    async fn echo(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.reader.raw().await? {
            self.write(&bytes).await?;
        }
        Ok(())
    }
}

fn wants_close(head: &Head) -> bool {
    let close = |v: &str| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("close"));
    head.start.ends_with("HTTP/1.0") || head.fields.all("connection").any(close)
}

fn received_request(head: Head, connection: usize) -> ReceivedRequest {
    let mut parts = head.start.split(' ');
    ReceivedRequest {
        index: 0,
        repeat: 0,
        connection,
        protocol: "HTTP/1.1",
        method: parts.next().unwrap_or_default().to_owned(),
        target: parts.next().unwrap_or_default().to_owned(),
        authority: head.fields.first("host").unwrap_or_default().to_owned(),
        fields: head.fields,
        raw: head.raw,
    }
}
