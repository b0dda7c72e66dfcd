//! TLS at the listener: the bootstrap of the real binary, a real Envoy, certificates in a folder like a mounted Secret.
#![allow(clippy::unwrap_used)]

mod testkit;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair};
use tempfile::TempDir;
use testkit::envoy::Envoy;
use testkit::eventually;
use testkit::fleet::{Fleet, server};
use testkit::players::{Game, Player, open};
use testkit::tidegate::{Tidegate, printed, run};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::client_async;

const HOST: &str = "game0.localhost";

/// Files that are swapped all at once: `tls.crt` is a link to `..data/tls.crt`, and `..data` a link that is replaced.
struct Secret {
    folder: TempDir,
    versions: usize,
}

impl Secret {
    fn of(pair: &CertifiedKey<KeyPair>) -> Self {
        let mut secret = Self { folder: tempfile::tempdir().unwrap(), versions: 0 };
        secret.renew(&pair.cert.pem(), &pair.signing_key.serialize_pem());
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), secret.path().join(file)).unwrap();
        }
        secret
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// As the kubelet does it: a new folder, and the link to it renamed over the old one.
    fn renew(&mut self, certificate: &str, key: &str) {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        fs::create_dir(self.path().join(&version)).unwrap();
        fs::write(self.path().join(&version).join("tls.crt"), certificate).unwrap();
        fs::write(self.path().join(&version).join("tls.key"), key).unwrap();
        symlink(&version, self.path().join("..data_tmp")).unwrap();
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
    }
}

fn certificate() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap()
}

/// One game, `game0`, behind an Envoy with both listeners.
struct Gate {
    game: Game,
    envoy: Envoy,
    https: SocketAddr,
    secret: Secret,
    _rest: (Tidegate, Fleet, TempDir),
}

impl Gate {
    async fn with(pair: &CertifiedKey<KeyPair>) -> Self {
        let game = Game::start("game0").await;
        let fleet = Fleet::of(&[server("game0", game.port)]);
        let tidegate = Tidegate::start(&fleet.path()).await;
        let (secret, folder) = (Secret::of(pair), tempfile::tempdir().unwrap());
        let file = folder.path().join("envoy.yaml");
        let any = "127.0.0.1:0";
        let line = format!(
            "bootstrap --xds {} --http {any} --https {any} --tls-dir {} --envoy-admin {any} --output {}",
            tidegate.xds,
            secret.path().display(),
            file.display()
        );
        let said = run(&line.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(printed(said), "", "it went to the file");
        let mut envoy = Envoy::start(&fs::read_to_string(&file).unwrap()).await;
        envoy.ready().await;
        let listeners = envoy.admin_get("/listeners").await;
        let https = listeners.lines().find_map(|line| line.strip_prefix("https::")).expect("a TLS listener");
        Self { game, https: https.parse().unwrap(), envoy, secret, _rest: (tidegate, fleet, folder) }
    }

    /// A handshake of one who trusts this certificate and no other.
    async fn handshake(
        &self,
        trusted: &CertifiedKey<KeyPair>,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.cert.der().clone()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.https).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(HOST.try_into().unwrap(), stream).await
    }

    async fn join(&self, trusted: &CertifiedKey<KeyPair>) -> Player {
        let stream = self.handshake(trusted, &["http/1.1"]).await.unwrap();
        let (socket, _) = client_async(format!("wss://{HOST}/"), stream).await.unwrap();
        Player::on(socket)
    }

    /// Returns when a new handshake has this certificate.
    async fn until_shown(&self, pair: &CertifiedKey<KeyPair>) {
        let shown = eventually(
            "a new handshake has the renewed certificate",
            async || self.handshake(pair, &[]).await.map(|_| ()).map_err(|error| error.to_string()),
            Result::is_ok,
        )
        .await;
        assert!(shown.is_ok());
    }

    async fn counts(&self, prefix: &str) -> Vec<(String, u64)> {
        self.envoy.stats(prefix).await
    }
}

async fn said(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A peer that closes without a TLS goodbye has still said all it had to say.
    _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_renewed_certificate_is_used_at_once_and_nobody_is_cut() {
    let [first, second] = [certificate(), certificate()];
    let mut gate = Gate::with(&first).await;
    let before = gate.counts("listener_manager.").await;
    let early = gate.join(&first).await;
    let plain = Player::on(open(gate.envoy.http, HOST, "/").await.unwrap());
    early.plays().await;

    gate.secret.renew(&second.cert.pem(), &second.signing_key.serialize_pem());
    gate.until_shown(&second).await;
    assert!(gate.handshake(&first, &[]).await.is_err(), "the old certificate is gone");

    // Renewals go wrong too: what Envoy can't read takes nothing away.
    gate.secret.renew("not a certificate", "not a key");
    eventually(
        "Envoy has seen the broken certificate",
        async || gate.counts("sds.https.key_rotation_failed").await,
        |counts| counts.first().is_some_and(|(_, count)| *count > 0),
    )
    .await;
    let late = gate.join(&second).await;

    gate.secret.renew(&first.cert.pem(), &first.signing_key.serialize_pem());
    gate.until_shown(&first).await;

    assert_eq!(gate.game.players(), 3);
    for player in [early, plain, late] {
        player.plays().await;
        let record = player.leave().await;
        assert!(record.is_clean(), "{record:?}");
    }
    assert_eq!(gate.counts("listener_manager.").await, before, "no listener was touched");
}

#[tokio::test]
async fn both_listeners_serve_the_same_routes() {
    let pair = certificate();
    let gate = Gate::with(&pair).await;
    for (alpn, chosen) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let stream = gate.handshake(&pair, alpn).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{alpn:?}");
    }
    let known = "GET /x HTTP/1.1\r\nhost: GAME0.localhost.:443\r\nconnection: close\r\n\r\n";
    let answer = said(gate.handshake(&pair, &["http/1.1"]).await.unwrap(), known).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""server":"game0""#), "{answer}");
    let unknown = "GET / HTTP/1.1\r\nhost: nobody.localhost\r\nconnection: close\r\n\r\n";
    let answer = said(gate.handshake(&pair, &["http/1.1"]).await.unwrap(), unknown).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    // Who speaks plain text to it is not answered as if it were the other listener.
    let answer = said(TcpStream::connect(gate.https).await.unwrap(), known).await;
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
}
