//! Connections as they come to a listener; a process that is out of files waits for one and goes on.

use std::{io, time::Duration};

use futures_util::{Stream, stream};
use tokio::net::{TcpListener, TcpStream};

/// How long nothing is accepted after a refusal by the system, which would be repeated at once.
const REST: Duration = Duration::from_millis(100);

/// The connections to a listener, without end and without errors.
pub(crate) fn connections(name: &'static str, listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold((listener, Refusals::default()), move |(listener, mut refusals)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    refusals.end(name);
                    // Frames are small and must not wait for the acknowledgement of the one before.
                    drop(stream.set_nodelay(true));
                    return Some((Ok(stream), (listener, refusals)));
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    refusals.begin(name, &error);
                    tokio::time::sleep(REST).await;
                }
            }
        }
    })
}

/// A series of refusals is one line in the log, and one at its end.
#[derive(Default)]
struct Refusals(u64);

impl Refusals {
    fn begin(&mut self, name: &str, error: &io::Error) {
        if self.0 == 0 {
            tracing::error!(
                event = "server.refuses",
                server = name,
                error.message = %error,
                "{name} takes no connections"
            );
        }
        self.0 += 1;
    }

    fn end(&mut self, name: &str) {
        if self.0 > 0 {
            tracing::info!(event = "server.accepts", server = name, "{name} takes connections again");
            self.0 = 0;
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::{env, fs::File, net::SocketAddr, process::Command};

    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use crate::Process;

    /// Set in the process that has few files.
    const FEW_FILES: &str = "ACCEPT_WITH_FEW_FILES";
    const THIS: &str = "accept::tests::servers_go_on_after_the_process_was_out_of_files";
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

    #[test]
    fn servers_go_on_after_the_process_was_out_of_files() {
        if env::var_os(FEW_FILES).is_some() {
            tokio::runtime::Runtime::new().expect("a runtime").block_on(run_out_of_files());
            return;
        }
        // The limit is the process's, so it is another process's.
        let this = env::current_exe().expect("this test");
        let script = format!("ulimit -n 64 && exec \"$0\" --exact {THIS} --nocapture");
        let ended = Command::new("bash").args(["-c", &script]).arg(this).env(FEW_FILES, "1").output().expect("bash");
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(
            ended.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }

    async fn run_out_of_files() {
        let process = Process::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (http, to_http) = process.bind("--http", any).await.expect("bound");
        let (grpc, to_grpc) = process.bind("--grpc", any).await.expect("bound");
        process.serve_http("http", http, Router::new().route("/", get(|| async { "here" })));
        process.serve_grpc("grpc", grpc, tonic::service::Routes::default());

        // The clients' sockets are there before the files run out.
        let sockets = [(); 2].map(|()| tokio::net::TcpSocket::new_v4().expect("a socket"));
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        let [to_http_socket, to_grpc_socket] = sockets;
        // The kernel takes them; the process can't.
        let mut web = timeout(PATIENCE, to_http_socket.connect(to_http)).await.expect("in time").expect("connected");
        let mut rpc = timeout(PATIENCE, to_grpc_socket.connect(to_grpc)).await.expect("in time").expect("connected");
        web.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
        rpc.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
        let mut first = [0; 1];
        let early = timeout(super::REST * 4, rpc.read(&mut first)).await;
        assert!(early.is_err(), "nobody can have accepted it: {early:?}");

        drop(files);
        let mut answer = String::new();
        timeout(PATIENCE, web.read_to_string(&mut answer)).await.expect("in time").expect("answered");
        assert!(answer.ends_with("here"), "{answer}");
        timeout(PATIENCE, rpc.read_exact(&mut first)).await.expect("in time").expect("settings of HTTP/2");
        drop((web, rpc));
        process.shut_down().await;
    }
}
