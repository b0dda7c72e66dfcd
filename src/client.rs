//! Asks a running control plane over its admin API, and prints what it says.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use axum::http::{Request, StatusCode, Uri};
use comfy_table::{ContentArrangement, Table, presets};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::cli::{Ask, Output, Question};

/// Largest answer that is read: 100,000 servers are about 80 MB.
const MAX_ANSWER: usize = 512 << 20;

/// Asks, and returns what to print.
pub async fn ask(ask: Ask) -> anyhow::Result<String> {
    let path = match &ask.question {
        Question::Routes(filter) => format!("/api/routes?q={}", escape(filter)),
        Question::Servers(filter) => format!("/api/servers?q={}", escape(filter)),
        Question::Envoys => "/api/envoys".to_owned(),
        Question::Explain { host, path, gateway } => {
            format!("/api/explain?host={}&path={}&gateway={}", escape(host), escape(path), escape(gateway))
        }
    };
    let answer = get(&ask.admin, &path).await?;
    Ok(match (ask.output, ask.question) {
        (Output::Json, _) => format!("{answer:#}"),
        (Output::Table, Question::Routes(_)) => routes(&answer["routes"]),
        (Output::Table, Question::Servers(_)) => servers(&answer["servers"]),
        (Output::Table, Question::Envoys) => envoys(&answer),
        (Output::Table, Question::Explain { .. }) => explanation(&answer),
    })
}

/// A `GET` of a JSON page.
pub async fn get(base: &str, path: &str) -> anyhow::Result<Value> {
    let base = base.trim_end_matches('/');
    let uri: Uri =
        format!("{base}{path}").parse().with_context(|| format!("--admin {base:?} is not a URL"))?;
    if uri.scheme_str() != Some("http") {
        bail!("--admin {base:?} is not a URL; expected one such as http://127.0.0.1:18080");
    }
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(uri).await.with_context(|| {
        format!("no control plane answers at {base}; start one by `tidegate serve`, or name it by --admin")
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body =
        body.map_err(|error| anyhow::anyhow!("{error}")).with_context(|| format!("reading {base}{path}"))?;
    let value: Value = serde_json::from_slice(&body.to_bytes()).with_context(|| {
        format!("{base}{path} answered {status}, and not in JSON: is it Tidegate's admin address?")
    })?;
    match (status, &value["error"]) {
        (StatusCode::OK, _) => Ok(value),
        (_, Value::String(error)) => bail!("{error}"),
        _ => bail!("{base}{path} answered {status}: {value}"),
    }
}

/// The status of a page of this machine; nothing when there is none.
pub async fn status(address: SocketAddr, path: &str) -> Option<u16> {
    let uri: Uri = format!("http://{address}{path}").parse().ok()?;
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    Some(client.get(uri).await.ok()?.status().as_u16())
}

/// A `POST` of nothing to a page of this machine; its answer does not matter.
pub async fn post(address: SocketAddr, path: &str) {
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://{address}{path}")).body(Empty::new());
    if let Ok(request) = request {
        _ = client.request(request).await;
    }
}

/// Percent-encodes all but what every part of a URL allows.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            // Writing to a String does not fail.
            _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn words(value: &Value) -> String {
    rows(value).map(word).collect::<Vec<_>>().join(", ")
}

fn pairs(value: &Value, between: &str) -> String {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(key, value)| format!("{key}{between}{}", word(value))).collect::<Vec<_>>().join("; ")
}

fn printed(table: &Table, what: &str) -> String {
    if table.row_count() == 0 { format!("no {what}") } else { trimmed(&table.to_string()) }
}

fn trimmed(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

fn routes(value: &Value) -> String {
    let mut table = table(&["ROUTE", "STATE", "ENVOYS", "HOLDERS", "LOST BY", "REFUSED", "PROBLEMS"]);
    for row in rows(value) {
        let path = word(&row["path"]);
        let gateway = row["gateway"].as_str().map(|gateway| format!(" ({gateway})")).unwrap_or_default();
        table.add_row([
            format!("{}{}{gateway}", word(&row["host"]), if path == "/" { "" } else { &path }),
            word(&row["state"]),
            format!("{}/{}", row["acknowledged"], row["envoys"]),
            holders(row),
            words(&row["lost"]),
            pairs(&row["refused"], ": "),
            rows(&row["problems"]).map(word).collect::<Vec<_>>().join("; "),
        ]);
    }
    printed(&table, "routes")
}

/// Who holds a route; of a share also who takes what part of the new players, and why others take none.
fn holders(row: &Value) -> String {
    let members: Vec<_> = rows(&row["members"])
        .map(|member| {
            let state = word(&member["state"]);
            let part = if state == "open" { format!("{}%", member["percent"]) } else { state };
            let version = member["version"].as_u64().filter(|version| *version > 0);
            let version = version.map(|version| format!(" v{version}")).unwrap_or_default();
            format!("{}{version} {part}", word(&member["server"]))
        })
        .collect();
    if members.is_empty() { words(&row["holders"]) } else { members.join(", ") }
}

fn servers(value: &Value) -> String {
    let mut table = table(&["SERVER", "MODE", "ENDPOINT", "SESSIONS", "ROUTES", "PROBLEMS"]);
    for row in rows(value) {
        let routes = rows(&row["routes"]).map(|key| {
            let path = word(&key["path"]);
            format!("{}{}", word(&key["host"]), if path == "/" { "" } else { &path })
        });
        let problems = rows(&row["problems"])
            .map(|problem| format!("{}: {}", word(&problem["field"]), word(&problem["why"])));
        let lost = row["lost"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, winner)| format!("{key} is held by {}", word(winner)));
        table.add_row([
            word(&row["id"]),
            word(&row["mode"]),
            row["endpoint"].as_str().unwrap_or("-").to_owned(),
            word(&row["sessions"]),
            routes.collect::<Vec<_>>().join(", "),
            problems.chain(lost).collect::<Vec<_>>().join("; "),
        ]);
    }
    printed(&table, "servers")
}

fn envoys(value: &Value) -> String {
    let mut table = table(&["ENVOY", "GATEWAY", "VERSION", "PEER", "BEHIND", "PUSHES", "NACKS", "REFUSED"]);
    let revision = value["revision"].as_u64().unwrap_or_default();
    for row in rows(&value["envoys"]) {
        let sum = |field: &str| {
            rows(&row["types"]).filter_map(|kind| kind[field].as_u64()).sum::<u64>().to_string()
        };
        let refused = rows(&row["types"]).flat_map(|kind| kind["refused"].as_object().into_iter().flatten());
        let refused: Vec<_> =
            refused.map(|(name, refused)| format!("{name}: {}", word(&refused["reason"]))).collect();
        table.add_row([
            word(&row["id"]),
            word(&row["gateway"]),
            word(&row["version"]),
            word(&row["peer"]),
            revision.saturating_sub(row["acked"].as_u64().unwrap_or_default()).to_string(),
            sum("pushes"),
            sum("nacks"),
            refused.join("; "),
        ]);
    }
    printed(&table, "envoys")
}

fn explanation(value: &Value) -> String {
    let mut lines = vec![word(&value["verdict"])];
    if value["route"]["members"].as_array().is_some_and(|members| !members.is_empty()) {
        lines.push(format!("  members {}", holders(&value["route"])));
    }
    lines.extend(rows(&value["route"]["problems"]).map(|problem| format!("  problem {}", word(problem))));
    for rung in rows(&value["tried"]) {
        let found = if rung["found"] == true { "found" } else { "-" };
        lines.push(format!("  scope {:40} {found}", word(&rung["scope"])));
    }
    if rows(&value["servers"]).next().is_some() {
        lines.push(servers(&value["servers"]));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_is_escaped() {
        assert_eq!(escape("/a?b=c&d é"), "%2Fa%3Fb%3Dc%26d%20%C3%A9");
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(routes(&json!([])), "no routes");
    }

    #[test]
    fn a_share_tells_who_takes_whom() {
        let member = |server: &str, state: &str, percent: f64, version: u32| json!({ "server": server, "state": state, "percent": percent, "version": version });
        let row = json!({
            "host": "a.x", "path": "/", "state": "open", "acknowledged": 1, "envoys": 1, "holders": ["a", "b", "c"],
            "members": [member("a", "open", 33.3, 0), member("b", "open", 66.7, 2), member("c", "standby", 0.0, 2)],
            "problems": ["they differ"], "refused": {},
        });
        let text = routes(&json!([row]));
        assert!(text.contains("a 33.3%, b v2 66.7%, c v2 standby") && text.contains("they differ"), "{text}");
        let text = explanation(&json!({ "verdict": "v", "tried": [], "servers": [], "route": row }));
        assert_eq!(text, "v\n  members a 33.3%, b v2 66.7%, c v2 standby\n  problem they differ");
    }

    #[test]
    fn a_route_is_a_line() {
        let row = json!({
            "host": "a.x", "path": "/p", "gateway": "eu", "state": "open", "acknowledged": 1, "envoys": 2,
            "holders": ["files/default/a"], "lost": [], "refused": {"envoy-1": "bad"},
        });
        let text = routes(&json!([row]));
        assert!(
            text.contains("a.x/p (eu)") && text.contains("1/2") && text.contains("envoy-1: bad"),
            "{text}"
        );
    }
}
