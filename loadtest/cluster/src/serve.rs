//! HTTP/1.1 on a loopback port: accepts, answers, and ends all at once when it is told to.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use crate::refusal::Refusal;

/// The body of an answer; an error in it cuts the connection.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The largest request body: what etcd's limit lets through, and some.
const LARGEST: usize = 3 << 20;

/// A listener and its connections. Dropping it ends them: no new connection, none left open.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves on a loopback port; port 0 is any free one.
    pub(crate) async fn start<H, F>(port: u16, handler: H) -> io::Result<Self>
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            // The set ends with this task, and each connection with the set.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        // A watch event is one small write: it must not wait for the next one.
                        let _ = stream.set_nodelay(true);
                        let handler = handler.clone();
                        let service = service_fn(move |request| {
                            let answer = handler(request);
                            async move { Ok::<_, Infallible>(answer.await) }
                        });
                        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { address, task: task.abort_handle() })
    }
}

/// The whole body of a request.
pub(crate) async fn collected(body: Incoming) -> Result<Bytes, Refusal> {
    let refused =
        |error| Refusal::of(413, format!("the request body is not whole, or over {LARGEST} bytes: {error}"));
    Ok(Limited::new(body, LARGEST).collect().await.map_err(refused)?.to_bytes())
}

/// An answer of JSON that is already rendered.
pub(crate) fn json_bytes(code: StatusCode, body: Bytes) -> Response<Body> {
    answer(code, "application/json", full(body))
}

/// An answer of JSON.
pub(crate) fn json(code: u16, value: &Value) -> Response<Body> {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_bytes(code, value.to_string().into())
}

/// A refusal.
pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    let mut answer = json(refusal.code, &refusal.status());
    if refusal.code == 429 {
        answer.headers_mut().insert(header::RETRY_AFTER, 1.into());
    }
    answer
}

pub(crate) fn answer(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}

pub(crate) fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}
