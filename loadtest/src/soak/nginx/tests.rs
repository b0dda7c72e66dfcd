//! A real nginx, a few servers, and a connection that a reload ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::soak::front::End;

/// A game that takes every connection as a WebSocket, as far as nginx can tell, and sends back what it hears.
async fn echo() -> End {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = [0; 4096];
                let mut answer: &[u8] =
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                while let Ok(count @ 1..) = stream.read(&mut heard).await {
                    if answer.is_empty() {
                        answer = &heard[..count];
                    }
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                    answer = &[];
                }
            });
        }
    });
    End { address, weight: 1 }
}

/// Connects as a player of this host; the stream behind the answer's head, and its status.
async fn player(nginx: &Nginx, host: &str) -> (TcpStream, u16) {
    let mut stream = TcpStream::connect(nginx.address()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.expect("a whole head"));
    }
    let text = String::from_utf8(text).unwrap();
    (stream, text.split(' ').nth(1).unwrap().parse().unwrap())
}

async fn says(stream: &mut TcpStream, word: &[u8; 4]) -> [u8; 4] {
    stream.write_all(word).await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    heard
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

fn options() -> Options {
    Options {
        nginx_servers: 10,
        worker_shutdown_timeout: vec![Duration::from_secs(1)],
        nginx_sync_rate: 10.0,
        nginx: None,
    }
}

/// Fails where there is no nginx, and says what to do: a comparison that is skipped proves nothing.
async fn started(routes: &Routes) -> Nginx {
    let options = options();
    let binary = options.binary().expect("an nginx: `loadtest/get-nginx` says how to get one");
    Nginx::start(&binary, &options, options.worker_shutdown_timeout[0], routes).await.unwrap()
}

#[tokio::test]
async fn a_new_server_is_a_reload_and_ends_the_connections_of_others() {
    let mut routes = Routes::from([("a.example.com".to_owned(), vec![echo().await])]);
    let mut nginx = started(&routes).await;
    let (mut inside, status) = player(&nginx, "a.example.com").await;
    assert_eq!((status, says(&mut inside, b"ping").await), (101, *b"ping"));
    assert_eq!(player(&nginx, "b.example.com").await.1, 404);
    let before = nginx.cost();
    assert_eq!((before.pushes, before.workers), (0, 2));
    assert!(nginx.memory_mb() > 1.0);

    // What is as it was costs nothing.
    nginx.apply(|| routes.clone());
    routes.insert("b.example.com".to_owned(), vec![echo().await]);
    nginx.apply(|| routes.clone());
    within("the new server", async {
        while player(&nginx, "b.example.com").await.1 != 101 {
            tokio::time::sleep(PACE).await;
        }
    })
    .await;
    // The player's own server was not touched: he is on the worker that was replaced, and is closed with it.
    assert_eq!(nginx.cost().pushes, 1);
    within("the drop", async {
        let mut heard = [0; 1];
        while let Ok(1..) = inside.read(&mut heard).await {}
    })
    .await;
    within("two workers again", async {
        while nginx.cost().workers != 2 {
            tokio::time::sleep(PACE).await;
        }
    })
    .await;
    assert_eq!(nginx.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn it_leaves_no_process_behind() {
    let nginx = started(&Routes::new()).await;
    let processes = nginx.processes();
    assert_eq!(processes.len(), 3);
    drop(nginx);
    within("their end", async {
        let alive = |pid: &u32| machine::proportional_kb(*pid) > 0;
        while processes.iter().any(alive) {
            tokio::time::sleep(PACE).await;
        }
    })
    .await;
}

#[test]
fn times_and_rates_have_limits_and_say_them() {
    assert_eq!(seconds("240s"), Ok(Duration::from_mins(4)));
    assert_eq!(seconds("1"), Ok(Duration::from_secs(1)));
    for bad in ["0s", "86401", "4m", "-1s", "", "1.5s"] {
        assert!(seconds(bad).is_err_and(|why| why.contains("240s")), "{bad}");
    }
    assert_eq!(rate("0.3"), Ok(0.3));
    for bad in ["0", "101", "NaN", "inf", "often"] {
        assert!(rate(bad).is_err_and(|why| why.contains("0.3")), "{bad}");
    }
}
