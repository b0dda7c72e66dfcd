//! TLS for players: a second listener, and the file by which Envoy finds its certificate.
//!
//! Envoy reads a certificate that stands in its bootstrap once. One that it is told by SDS is read again when it is
//! renewed, and SDS may be a file: so there are two texts, the bootstrap and the secret beside it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::{fill, is_plain};

const SECRET: &str = include_str!("secret.yaml");

/// Longest path that is taken, in bytes: that of Linux.
const MAX_PATH: usize = 4095;

/// The TLS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Https {
    /// Where players connect by TLS.
    pub address: SocketAddr,
    /// The folder with `tls.crt` (the certificate, then its chain) and `tls.key`, both PEM: a mounted Secret of type
    /// `kubernetes.io/tls`.
    pub folder: FilePath,
    /// Where Envoy will find what [`secret`] returns.
    pub secret: FilePath,
}

/// The secret that names the certificate's files, as YAML: its place is [`Https::secret`].
pub fn secret(https: &Https) -> String {
    fill(SECRET, &[("folder", https.folder.as_str())])
}

/// An absolute path of printable ASCII characters, none a quote or a backslash, and without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(String);

/// Why a text is not a [`FilePath`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is not a path for Envoy ({why}); write an absolute path of printable ASCII characters without quotes and backslashes, like /etc/tidegate/tls"
)]
pub struct BadFilePath {
    text: String,
    why: &'static str,
}

impl FilePath {
    /// The path as it is given to Envoy.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = BadFilePath;

    fn from_str(text: &str) -> Result<Self, BadFilePath> {
        let path = text.trim_end_matches('/');
        let why = if !text.starts_with('/') {
            "it does not start with /"
        } else if path.is_empty() {
            "it is the root"
        } else if path.len() > MAX_PATH {
            "it is too long"
        } else if !path.bytes().all(is_plain) {
            "it holds another character"
        } else {
            return Ok(Self(path.to_owned()));
        };
        Err(BadFilePath { text: text.to_owned(), why })
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bootstrap::{Options, bootstrap};

    fn https(folder: &str) -> Https {
        Https {
            address: ([0, 0, 0, 0], 10443).into(),
            folder: folder.parse().unwrap(),
            secret: "/etc/envoy/envoy.tls.yaml".parse().unwrap(),
        }
    }

    fn yaml(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    /// `TIDEGATE_BLESS=1 cargo test goldens` rewrites the files, to be read as a diff.
    #[test]
    fn goldens_of_tls_are_what_is_printed() {
        let https = https("/etc/tidegate/tls");
        let options = Options { https: Some(https.clone()), ..Options::default() };
        for (file, printed) in
            [("bootstrap-https.yaml", bootstrap(&options)), ("bootstrap-https.tls.yaml", secret(&https))]
        {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy").join(file);
            if std::env::var_os("TIDEGATE_BLESS").is_some() {
                std::fs::write(&path, &printed).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == printed, "envoy/{file} is not what is printed: TIDEGATE_BLESS=1 rewrites it");
        }
    }

    #[test]
    fn both_listeners_have_the_same_filters() {
        let printed = yaml(&bootstrap(&Options { https: Some(https("/tls")), ..Options::default() }));
        let listeners = printed["static_resources"]["listeners"].as_array().unwrap();
        assert_eq!(listeners.iter().map(|one| &one["name"]).collect::<Vec<_>>(), ["http", "https"]);
        for field in ["per_connection_buffer_limit_bytes", "tcp_keepalive"] {
            assert_eq!(listeners[0][field], listeners[1][field], "{field}");
        }
        assert_eq!(listeners[0]["filter_chains"][0]["filters"], listeners[1]["filter_chains"][0]["filters"]);
        let source = &listeners[1]["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
            ["tls_certificate_sds_secret_configs"][0]["sds_config"]["path_config_source"];
        assert_eq!(source["path"], "/etc/envoy/envoy.tls.yaml");
    }

    #[test]
    fn without_tls_nothing_of_it_is_printed() {
        let printed = bootstrap(&Options::default());
        assert!(
            !printed.contains("https") && !printed.contains("&players") && !printed.contains("*keepalive")
        );
    }

    /// Every character, alone and inside, either is refused or comes back from the YAML as it was.
    #[test]
    fn no_accepted_path_is_misread() {
        for character in (0u8..=255).map(char::from) {
            let text = format!("/a{character}/{character}: b #{character}");
            let Ok(folder) = text.parse::<FilePath>() else { continue };
            let certificate =
                &yaml(&secret(&Https { folder, ..https("/x") }))["resources"][0]["tls_certificate"];
            let folder = text.trim_end_matches('/');
            assert_eq!(certificate["watched_directory"]["path"], folder);
            assert_eq!(certificate["private_key"]["filename"], format!("{folder}/tls.key"));
        }
    }

    #[test]
    fn a_bad_path_says_what_was_expected() {
        let long = format!("/{}", "x".repeat(4095));
        for text in ["", "/", "//", "tls", "./tls", "C:\\tls", "/a\"b", "/a'b", "/a\\b", "/a\nb", "/é", &long]
        {
            let error = text.parse::<FilePath>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("{text:?}")) && error.contains("like /etc/tidegate/tls"),
                "{error}"
            );
        }
        assert_eq!("/a b/".parse::<FilePath>().unwrap().as_str(), "/a b");
    }
}
