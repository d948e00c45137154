//! An echo server on gateway's own socket loop with its production limits: what the Autobahn cases are run against.
//!
//! Prints the address it listens on, and ends with its standard input.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use axum::{
    Router,
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
    routing::get,
};
use gateway::{
    config::Limits,
    socket::{self, Line, Talk},
};
use tokio::io::AsyncReadExt as _;

/// Sends back what comes, one message after the other.
struct Echo<'a> {
    line: &'a Line,
    waiting: Option<Message>,
}

impl Talk for Echo<'_> {
    fn early(&mut self, message: Message) {
        self.take(message);
    }

    fn take(&mut self, message: Message) {
        self.waiting = Some(message);
    }

    fn has_room(&self) -> bool {
        self.waiting.is_none()
    }

    async fn progress(&mut self) {
        match self.waiting.clone() {
            Some(message) => {
                self.line.outbound.page(message).await;
                self.waiting = None;
            }
            None => std::future::pending().await,
        }
    }
}

async fn echo(State(limits): State<Arc<Limits>>, upgrade: WebSocketUpgrade) -> Response {
    socket::bounded(upgrade, &limits).on_upgrade(move |socket: WebSocket| async move {
        let line = Line::default();
        socket::run(&line, &limits, socket, &mut Echo { line: &line, waiting: None }, |_| Vec::new()).await;
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let process = platform::Process::new();
    let (listener, address) = match process.bind("the echo", SocketAddr::from(([127, 0, 0, 1], 0))).await {
        Ok(bound) => bound,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let limits = Arc::new(Limits::default());
    process.serve_http("echo", listener, Router::new().route("/", get(echo)).with_state(limits));
    #[expect(clippy::print_stdout, reason = "whoever started it reads the address there")]
    {
        println!("ws://{address}/");
    }
    let mut rest = Vec::new();
    drop(tokio::io::stdin().read_to_end(&mut rest).await); // its end is what matters
    ExitCode::SUCCESS
}
