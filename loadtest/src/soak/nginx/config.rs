//! The configuration of nginx, as ingress-nginx writes one: a server block and an upstream a host.
//!
//! What it leaves out is what players here do not use (TLS, HTTP/2, Lua, logs of requests), so this nginx has less to do
//! than that of ingress-nginx. Values that matter are that controller's own defaults, named at each.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::soak::front::Routes;

/// What does not change with the fleet.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    /// Where players connect.
    pub(super) listen: SocketAddr,
    /// Server blocks besides those of the fleet, to which nobody goes.
    pub(super) idle: usize,
    /// How long workers that were replaced keep their connections: `worker-shutdown-timeout`, 240 s there.
    pub(super) worker_shutdown_timeout: Duration,
    /// Open files a worker may have.
    pub(super) files: u64,
    /// Whether root runs it, who would otherwise become somebody that may not enter the folder.
    pub(super) root: bool,
}

/// Where a host of an idle block leads: the discard port, on which nothing listens.
const NOWHERE: &str = "127.0.0.1:9";

/// The whole file, whose other files are in `folder`.
pub(super) fn text(fixed: &Fixed, folder: &Path, routes: &Routes) -> String {
    let Fixed { listen, idle, worker_shutdown_timeout, files, root } = fixed;
    let (folder, seconds) = (folder.display(), worker_shutdown_timeout.as_secs());
    let hosts = routes.len() + idle;
    // Wide enough for every name at once: nginx refuses to start with a table that is too small.
    let (table, bucket) = ((hosts * 2).next_power_of_two().max(1024), 128);
    let mut text = String::new();
    if *root {
        text += "user root;\n";
    }
    // `reuseport` and `multi_accept` are on there, and `worker_connections` is 16384.
    // Writing to a String does not fail.
    _ = write!(
        text,
        "daemon off;
pid {folder}/pid;
worker_processes 2;
worker_rlimit_nofile {files};
worker_shutdown_timeout {seconds}s;
events {{
    multi_accept on;
    worker_connections 16384;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server_names_hash_max_size {table};
    server_names_hash_bucket_size {bucket};
    keepalive_timeout 75s;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' '';
    }}
    server {{
        listen {listen} default_server reuseport;
        server_name _;
        return 404;
    }}
"
    );
    for (host, ends) in routes {
        // A host whose servers all went has no block, as an Ingress that was deleted.
        let ends: Vec<_> = ends.iter().filter(|end| end.weight > 0).collect();
        if !ends.is_empty() {
            let lines = ends.iter().fold(String::new(), |mut lines, end| {
                _ = writeln!(lines, "        server {} weight={} max_fails=0;", end.address, end.weight);
                lines
            });
            block(&mut text, *listen, host, &lines);
        }
    }
    for number in 0..*idle {
        block(
            &mut text,
            *listen,
            &format!("idle{number}.example.com"),
            &format!("        server {NOWHERE};\n"),
        );
    }
    text += "}\n";
    text
}

/// An upstream and a server block. No upstream keeps connections for the next request: ingress-nginx has one upstream for
/// all hosts, and so room for that once; a thousand times it would be memory that is not its. The timeouts are those that documentation asks for with WebSockets, an hour.
fn block(text: &mut String, listen: SocketAddr, host: &str, ends: &str) {
    _ = write!(
        text,
        "    upstream {host} {{
{ends}    }}
    server {{
        listen {listen};
        server_name {host};
        location / {{
            proxy_pass http://{host};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_connect_timeout 5s;
            proxy_send_timeout 3600s;
            proxy_read_timeout 3600s;
            proxy_buffering off;
            proxy_next_upstream error timeout;
        }}
    }}
"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::front::End;

    #[test]
    fn a_host_is_an_upstream_and_a_server_block() {
        let end = |port, weight| End { address: SocketAddr::from(([127, 0, 0, 1], port)), weight };
        let routes = Routes::from([
            ("game-0.example.com".to_owned(), vec![end(7000, 1)]),
            ("shared.example.com".to_owned(), vec![end(7001, 3), end(7002, 1), end(7003, 0)]),
            ("gone.example.com".to_owned(), vec![]),
        ]);
        let fixed = Fixed {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            idle: 1,
            worker_shutdown_timeout: Duration::from_mins(4),
            files: 20_000,
            root: false,
        };
        let made = text(&fixed, Path::new("/run/soak"), &routes);
        assert_eq!(made, include_str!("golden.conf"), "if this is meant, write it to golden.conf:\n{made}");
    }

    #[test]
    fn the_table_of_names_grows_with_the_hosts() {
        let fixed = Fixed {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            idle: 1_000,
            worker_shutdown_timeout: Duration::from_secs(1),
            files: 1,
            root: true,
        };
        let made = text(&fixed, Path::new("/x"), &Routes::new());
        assert!(made.starts_with("user root;\n") && made.contains("server_names_hash_max_size 2048;"));
        assert_eq!(made.matches("server_name idle").count(), 1_000);
    }
}
