//! The protocols that a server may ask for besides HTTP/1.1 in the clear, each with a server that speaks nothing else.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::convert::Infallible;
use std::process::Stdio;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use testkit::fleet::{annotated, server};
use testkit::gate::Gate;
use testkit::players::open;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Takes a WebSocket as HTTP/2 has it: a CONNECT with a `:protocol` (RFC 8441). Echoes.
async fn echo(
    mut request: Request<hyper::body::Incoming>,
) -> Result<Response<Empty<bytes::Bytes>>, Infallible> {
    let is_websocket =
        request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket");
    let status = if request.method() == Method::CONNECT && is_websocket { 200 } else { 400 };
    if status == 200 {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = TokioIo::new(upgrade.await.unwrap());
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() && socket.send(message).await.is_err() {
                    break;
                }
            }
        });
    }
    let mut response = Response::builder().status(status);
    // RFC 8441 has no such header, but the player speaks HTTP/1.1 and waits for it, and Envoy passes both on.
    if let Some(key) = request.headers().get("sec-websocket-key") {
        response = response.header("sec-websocket-accept", derive_accept_key(key.as_bytes()));
    }
    Ok(response.body(Empty::new()).unwrap())
}

#[tokio::test]
async fn a_websocket_reaches_a_server_that_speaks_http2_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let game = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http2.enable_connect_protocol();
            tokio::spawn(http2.serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    });
    let gate = Gate::of(&[annotated(&server("two", port), "protocol", "h2c")]).await;
    let mut socket = open(gate.envoy.http, "two.localhost", "/").await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    let answer = tokio::time::timeout(testkit::LIMIT, socket.next()).await.unwrap();
    assert_eq!(answer.unwrap().unwrap(), Message::text("hello"));
    game.abort();
}

/// An HTTPS server with a certificate that it signed itself; it says its port first.
const HTTPS: &str = r"
import http.server, ssl, sys
class Game(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'over TLS'
        self.send_response(200); self.send_header('content-length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *words): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server = http.server.HTTPServer(('127.0.0.1', 0), Game)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";

#[tokio::test]
async fn a_server_may_speak_tls_with_a_certificate_of_its_own() {
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testkit/server.pem");
    let mut game = Command::new("python3")
        .args(["-c", HTTPS, certificate])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 runs, as it does for envoy/get-envoy");
    let mut lines = BufReader::new(game.stdout.take().unwrap()).lines();
    let port = lines.next_line().await.unwrap().expect("its port").parse().unwrap();
    let gate = Gate::of(&[annotated(&server("safe", port), "protocol", "tls"), server("plain", port)]).await;
    let answer = gate.get("safe.localhost", "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "over TLS"));
    assert_ne!(gate.get("plain.localhost", "/").await.status, 200, "it speaks nothing else");
}
