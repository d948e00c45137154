//! HTTP/1.1 for clients: the heads of their requests are bounded in size and in time.

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo, response::Response};
use futures_util::StreamExt as _;
use hyper::{body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::accept;

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Time for the head of a request; so long a connection may be idle between two, too. Longer than the 60 s for which
    /// load balancers keep idle connections (AWS' by default): one that we closed first would cost a request.
    pub(crate) head_within: Duration,
    /// Bytes of the head of a request.
    pub(crate) head_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { head_within: Duration::from_secs(75), head_bytes: 32 * 1024 }
    }
}

/// Serves until the token is cancelled, then finishes the requests in flight.
pub(crate) async fn serve(
    name: &'static str,
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    bounds: Bounds,
) {
    let open = TaskTracker::new();
    let taking = async {
        let mut accepted = std::pin::pin!(accept::connections(name, listener));
        while let Some(Ok(stream)) = accepted.next().await {
            drop(open.spawn(connection(stream, router.clone(), stop.clone(), bounds)));
        }
    };
    // With this the listener is closed.
    tokio::select! {
        () = taking => {}
        () = stop.cancelled() => {}
    }
    open.close();
    open.wait().await;
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken, bounds: Bounds) {
    let Ok(peer) = stream.peer_addr() else { return }; // it is gone already
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: ::http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answered = router.call(request.map(Body::new));
        async move {
            let response: Result<Response, Infallible> = answered.await;
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_within)
        .max_buf_size(bounds.head_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("a connection broke: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;
    use crate::Process;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn started(bounds: Bounds) -> (Process, SocketAddr, CancellationToken) {
        let process = Process::new();
        let (listener, address) = process.bind("test", SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
        let peer = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string();
        let stop = CancellationToken::new();
        drop(process.spawn_child(serve("test", listener, Router::new().route("/", get(peer)), stop.clone(), bounds)));
        (process, address, stop)
    }

    /// Sends this, and reads to the end of the connection.
    async fn exchange(address: SocketAddr, sent: &[u8]) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.expect("reached");
        stream.write_all(sent).await.expect("sent");
        let mut answer = Vec::new();
        // What was sent in vain may reset the connection: what came before counts.
        drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time"));
        (stream, String::from_utf8_lossy(&answer).into_owned())
    }

    #[tokio::test]
    async fn a_request_knows_its_peer_and_a_stop_ends_idle_connections() {
        let (process, address, stop) = started(Bounds::default()).await;
        let asked = exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(asked.1.starts_with("HTTP/1.1 200 OK"), "{}", asked.1);
        assert!(asked.1.contains("127.0.0.1:"), "{}", asked.1);
        let mut idle = TcpStream::connect(address).await.expect("reached");
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"127.0.0.1:") {
            answer.push(timeout(PATIENCE, idle.read_u8()).await.expect("in time").expect("an answer"));
        }
        stop.cancel();
        timeout(PATIENCE, idle.read_to_end(&mut answer)).await.expect("in time").expect("an end");
        timeout(PATIENCE, process.shut_down()).await.expect("nothing is left");
    }

    #[tokio::test]
    async fn a_head_that_never_ends_and_one_that_is_too_long_end_their_connections() {
        let bounds = Bounds { head_within: Duration::from_millis(100), ..Bounds::default() };
        let (_process, address, _stop) = started(bounds).await;
        let (_, answer) = exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
        assert!(!answer.contains("200"), "{answer}");

        let (_process, address, _stop) = started(Bounds::default()).await;
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000));
        let (_, answer) = exchange(address, long.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}
