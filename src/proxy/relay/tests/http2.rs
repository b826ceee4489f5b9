//! HTTP/2 on both sides: trailers, and what an upstream says with GOAWAY and RST_STREAM.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::failures::{raw_upstream, read_head};
use super::support::TestProxy;

type Incoming = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves an upstream's connection with `respond`, which is called with the number of the request.
async fn serve(tcp: TcpStream, respond: impl Fn(usize, Incoming)) {
    let mut connection = h2::server::handshake(tcp).await.unwrap();
    let mut number = 0;
    while let Some(Ok(incoming)) = connection.accept().await {
        respond(number, incoming);
        number += 1;
    }
}

async fn proxy_for(upstream: SocketAddr) -> TestProxy {
    TestProxy::with(|options| {
        options.http2 = true;
        options.addresses = Some(vec![upstream]);
    })
    .await
}

async fn connect(proxy: &TestProxy) -> h2::client::SendRequest<Bytes> {
    let tcp = TcpStream::connect(proxy.h2c).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn post() -> Request<()> {
    let request = Request::post("http://any/api/x").header("te", "trailers");
    request.body(()).unwrap()
}

async fn read_all(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len()).unwrap();
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Sends a POST, and returns the status and body of its response.
async fn exchange(proxy: &TestProxy) -> (u16, Vec<u8>) {
    let mut client = connect(proxy).await;
    let (response, mut upload) = client.send_request(post(), false).unwrap();
    upload.send_data("body".into(), true).unwrap();
    let mut response = response.await.unwrap();
    let body = read_all(response.body_mut()).await.unwrap();
    (response.status().as_u16(), body)
}

fn ok(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    respond.send_response(Response::new(()), false).unwrap()
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let upstream = raw_upstream(|_, tcp| {
        serve(tcp, |_, (request, mut respond)| {
            tokio::spawn(async move {
                assert_eq!(request.headers().get("te").unwrap(), "trailers");
                let mut body = request.into_body();
                let received = read_all(&mut body).await.unwrap();
                let trailers = body.trailers().await.unwrap().unwrap();
                let mut content = ok(&mut respond);
                content.send_data(received.into(), false).unwrap();
                content.send_trailers(trailers).unwrap();
            });
        })
    })
    .await;
    let proxy = proxy_for(upstream).await;
    let mut client = connect(&proxy).await;
    let (response, mut upload) = client.send_request(post(), false).unwrap();
    upload.send_data("message".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    upload.send_trailers(trailers).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(read_all(&mut body).await.unwrap(), b"message");
    let received = body.trailers().await.unwrap().unwrap();
    assert_eq!(received.get("grpc-status").unwrap(), "0");
}

#[tokio::test]
async fn a_post_that_was_not_processed_is_sent_again() {
    for reason in [None, Some(Reason::REFUSED_STREAM)] {
        let upstream = raw_upstream(move |number, mut tcp| async move {
            if number == 0 && reason.is_none() {
                // SETTINGS, and a GOAWAY that excludes all streams.
                tcp.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
                tcp.write_all(goaway).await.unwrap();
                while read_head(&mut tcp).await.ends_with("\r\n\r\n") {}
                return;
            }
            serve(tcp, |number, (_, mut respond)| match reason {
                Some(reason) if number == 0 => respond.send_reset(reason),
                _ => ok(&mut respond).send_data("done".into(), true).unwrap(),
            })
            .await;
        })
        .await;
        let proxy = proxy_for(upstream).await;
        assert_eq!(exchange(&proxy).await, (200, b"done".to_vec()));
    }
}

#[tokio::test]
async fn http_1_1_required_is_obeyed() {
    let upstream = raw_upstream(|number, mut tcp| async move {
        if number == 0 {
            let refuse = |_, (_, mut respond): Incoming| {
                respond.send_reset(Reason::HTTP_1_1_REQUIRED);
            };
            return serve(tcp, refuse).await;
        }
        assert!(
            read_head(&mut tcp)
                .await
                .starts_with("POST /api/x HTTP/1.1\r\n")
        );
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
        tcp.write_all(answer).await.unwrap();
    })
    .await;
    let proxy = proxy_for(upstream).await;
    assert_eq!(exchange(&proxy).await, (200, b"done".to_vec()));
}

#[tokio::test]
async fn a_request_that_was_reset_for_another_reason_is_502_and_not_repeated() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let upstream = raw_upstream(move |_, tcp| {
        let count = Arc::clone(&count);
        serve(tcp, move |_, (_, mut respond)| {
            count.fetch_add(1, Ordering::SeqCst);
            respond.send_reset(Reason::INTERNAL_ERROR);
        })
    })
    .await;
    let proxy = proxy_for(upstream).await;
    assert_eq!(exchange(&proxy).await.0, 502);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_early_answer_ends_an_endless_upload() {
    let upstream = raw_upstream(|_, tcp| {
        serve(tcp, |_, (_request, mut respond)| {
            ok(&mut respond).send_data("enough".into(), true).unwrap();
        })
    })
    .await;
    let proxy = proxy_for(upstream).await;
    let mut client = connect(&proxy).await;
    let (response, mut upload) = client.send_request(post(), false).unwrap();
    upload.send_data("and so on".into(), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(read_all(&mut body).await.unwrap(), b"enough");
    let reset = poll_fn(|cx| upload.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::NO_ERROR);
}

#[tokio::test]
async fn a_response_that_was_cut_short_ends_in_a_reset() {
    let upstream = raw_upstream(|_, tcp| {
        serve(tcp, |_, (_, mut respond)| {
            let mut content = ok(&mut respond);
            content.send_data("part".into(), false).unwrap();
            tokio::spawn(async move {
                // Once the part has been sent.
                content.reserve_capacity(100_000);
                poll_fn(|cx| content.poll_capacity(cx)).await;
                content.send_reset(Reason::INTERNAL_ERROR);
            });
        })
    })
    .await;
    let proxy = proxy_for(upstream).await;
    let mut client = connect(&proxy).await;
    let (response, mut upload) = client.send_request(post(), false).unwrap();
    upload.send_data(Bytes::new(), true).unwrap();
    let result = match response.await {
        // The reset may overtake the response: then nothing of it was sent.
        Ok(response) if response.status() == 502 => return,
        Ok(mut response) => read_all(response.body_mut()).await,
        Err(error) => Err(error),
    };
    let error = result.unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error}");
}
