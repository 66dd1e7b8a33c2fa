//! The client against servers that behave and servers that do not.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn client() -> Client {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::new(Arc::new(tls), Duration::from_secs(2))
}

/// A server that answers each request of each connection with the next of these texts, written in pieces of `size`.
async fn server(answers: Vec<&'static str>, size: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        'connections: while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            while request(&mut stream).await {
                let Some(answer) = answers.next() else { break 'connections };
                if answer.is_empty() {
                    continue 'connections;
                }
                for piece in answer.as_bytes().chunks(size) {
                    if stream.write_all(piece).await.is_err() {
                        continue 'connections;
                    }
                    tokio::task::yield_now().await;
                }
                if answer.contains("close") {
                    continue 'connections;
                }
            }
        }
    });
    (port, connections)
}

/// Reads one request; false at the end of the connection.
async fn request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    loop {
        let mut piece = [0u8; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return false,
            Ok(n) => seen.extend_from_slice(&piece[..n]),
        }
        let Some(end) = memchr::memmem::find(&seen, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let length: usize = head.split("content-length: ").nth(1).and_then(|r| r.split("\r\n").next()).map_or(0, |n| n.parse().unwrap());
        if seen.len() >= end + 4 + length {
            return true;
        }
    }
}

async fn ask(client: &Client, port: u16) -> Result<(u16, Bytes), Error> {
    let body = Payload::from_iter([Bytes::from_static(b"{\"a\":"), Bytes::from_static(b"1}")]);
    let call = Call { method: Method::POST, uri: format!("http://127.0.0.1:{port}/v1/x?y=z").parse().unwrap(), headers: HeaderMap::new(), body };
    let response = client.call(call).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

#[tokio::test]
async fn every_framing_in_every_piece_and_connections_are_used_again() {
    for size in [1, 3, 10_000] {
        let answers = vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the close",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ];
        let (port, connections) = server(answers, size).await;
        let client = client();
        let mut seen = Vec::new();
        for _ in 0..6 {
            let (status, body) = ask(&client, port).await.unwrap();
            seen.push((status, String::from_utf8(body.to_vec()).unwrap()));
        }
        let expected = [(200, "hello"), (201, "hello"), (204, ""), (200, ""), (200, "until the close"), (200, "ok")];
        assert_eq!(seen, expected.map(|(s, b)| (s, b.to_owned())), "in pieces of {size}");
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn only_what_can_be_asked_twice_is_asked_again_when_a_waiting_connection_was_closed() {
    for (method, connections_wanted) in [(Method::GET, 2), (Method::POST, 1)] {
        let (port, connections) = server(vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], 10_000).await;
        let client = client();
        assert_eq!(ask(&client, port).await.unwrap().0, 200);
        // The server closes when the second request has come, without an answer.
        let call = Call { method: method.clone(), uri: format!("http://127.0.0.1:{port}/").parse().unwrap(), headers: HeaderMap::new(), body: Payload::default() };
        assert_eq!(client.call(call).await.is_ok(), method == Method::GET);
        assert_eq!(connections.load(Ordering::SeqCst), connections_wanted);
    }
}

#[tokio::test]
async fn answers_that_break_off_or_make_no_sense_are_errors() {
    let cases = [
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nclose",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nclose\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nclose",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nclose\r\n",
        "nonsense close\r\n\r\n",
    ];
    for case in cases {
        let (port, _) = server(vec![case], 10_000).await;
        assert!(ask(&client(), port).await.is_err(), "{case}");
    }
    let (port, _) = server(vec![""], 1).await;
    assert!(matches!(ask(&client(), port).await, Err(Error::Closed | Error::Io(_))));
}

#[tokio::test]
async fn nobody_there_is_a_failed_connection() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = ask(&client(), port).await.unwrap_err();
    assert!(error.is_connect(), "{error}");
}

#[tokio::test]
async fn an_answer_before_the_request_is_read_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await.unwrap();
        // The body is never read; the connection stays open for a while.
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    let call = Call { method: Method::POST, uri: format!("http://127.0.0.1:{port}/").parse().unwrap(), headers: HeaderMap::new(), body: Payload::from(vec![b'x'; 20 << 20]) };
    let response = tokio::time::timeout(Duration::from_secs(4), client().call(call)).await.unwrap().unwrap();
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn a_burst_of_chunks_comes_in_one_piece() {
    let (port, _) = server(vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"], 10_000).await;
    let call = Call { method: Method::GET, uri: format!("http://127.0.0.1:{port}/").parse().unwrap(), headers: HeaderMap::new(), body: Payload::default() };
    let mut body = client().call(call).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "abc");
    assert!(body.frame().await.is_none());
}
