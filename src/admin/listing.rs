//! A long list as JSON, written while it is read: neither the engine nor the memory holds all of it.

use std::convert::Infallible;
use std::fmt::{Display, Write};
use std::mem;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Keys whose rows are asked for at once: a millisecond or so of the engine, between two commits.
const SLICE: usize = 256;
/// Pieces that wait for the reader.
const PIECES: usize = 2;

/// A list as it is asked for.
pub(super) struct Listing<K> {
    /// The field that it stands in.
    pub(super) name: &'static str,
    /// What there is, in order.
    pub(super) keys: Vec<K>,
    /// Rows of about so many keys; all, if none is said.
    pub(super) limit: Option<usize>,
    /// A field that stands behind the list.
    pub(super) also: Option<(&'static str, Value)>,
}

impl<K: Clone + Display + Send + Sync + 'static> Listing<K> {
    /// Answers with the rows that `rows` makes of slices of the keys. A list that was cut has a field
    /// `next`: the key behind which it goes on. One that can't be ended is cut off, and so no JSON.
    pub(super) fn answer<R, F>(self, rows: impl Fn(Vec<K>) -> F + Send + 'static) -> Response
    where
        R: Serialize + Send,
        F: Future<Output = Option<Vec<R>>> + Send,
    {
        let (pieces, body) = mpsc::channel::<Result<String, Infallible>>(PIECES);
        tokio::spawn(async move {
            let Self { name, mut keys, limit, also } = self;
            let next = match limit {
                Some(limit) if limit < keys.len() => {
                    keys.truncate(limit.max(1));
                    keys.last().map(ToString::to_string)
                }
                _ => None,
            };
            let mut text = format!("{{\"{name}\":[");
            let mut is_first = true;
            for slice in keys.chunks(SLICE) {
                let Some(found) = rows(slice.to_vec()).await else { return };
                for row in &found {
                    let Ok(row) = serde_json::to_string(row) else { return };
                    text.push_str(if mem::take(&mut is_first) { "" } else { "," });
                    text.push_str(&row);
                }
                if pieces.send(Ok(mem::take(&mut text))).await.is_err() {
                    return;
                }
            }
            text.push(']');
            let next = next.map(|next| ("next", Value::String(next)));
            for (field, value) in also.into_iter().chain(next) {
                // Writing to a String does not fail.
                _ = write!(text, ",\"{field}\":{value}");
            }
            text.push('}');
            _ = pieces.send(Ok(text)).await;
        });
        let json = [(header::CONTENT_TYPE, "application/json")];
        (json, Body::from_stream(ReceiverStream::new(body))).into_response()
    }
}
