//! A socket without any manners, for what the reference client would never send.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// A JSON frame.
    Frame(Value),
    /// The close code.
    Closed(u16),
}

/// A WebSocket as it is.
#[derive(Debug)]
pub struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Raw {
    /// Connects with these headers. `Err(status, body)` when the handshake is refused.
    ///
    /// # Errors
    /// When the server is not reached.
    pub async fn connect(
        server: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Result<Self, (u16, Value)>> {
        let url = format!("{}{path}", server.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let name = tungstenite::http::HeaderName::from_bytes(name.as_bytes())?;
            request.headers_mut().insert(name, value.parse()?);
        }
        match timeout(ANSWER_WITHIN, connect_async(request)).await? {
            Ok((socket, _)) => Ok(Ok(Self(socket))),
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Ok(Err((response.status().as_u16(), serde_json::from_slice(body).unwrap_or_default())))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a text frame.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn text(&mut self, text: impl Into<String>) -> anyhow::Result<()> {
        self.0.send(Message::text(text.into())).await.context("not sent")
    }

    /// Sends a binary frame.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn binary(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.0.send(Message::binary(bytes)).await.context("not sent")
    }

    /// The next frame, or how it closed.
    ///
    /// # Errors
    /// When nothing comes in time.
    pub async fn next(&mut self) -> anyhow::Result<Got> {
        loop {
            let message = timeout(ANSWER_WITHIN, self.0.next()).await.context("no answer in time")?;
            match message.context("gone without a close")? {
                Ok(Message::Text(text)) => return Ok(Got::Frame(serde_json::from_str(&text)?)),
                Ok(Message::Close(frame)) => return Ok(Got::Closed(frame.map_or(1005, |frame| frame.code.into()))),
                Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next frame of that type; others are passed over.
    ///
    /// # Errors
    /// When it does not come, or the socket closes.
    pub async fn next_of(&mut self, kind: &str) -> anyhow::Result<Value> {
        self.next_of_either(kind, kind).await
    }

    /// The next frame of one of two types; others are passed over.
    ///
    /// # Errors
    /// When it does not come, or the socket closes.
    pub async fn next_of_either(&mut self, one: &str, other: &str) -> anyhow::Result<Value> {
        loop {
            match self.next().await? {
                Got::Frame(frame) if frame["type"] == one || frame["type"] == other => return Ok(frame),
                Got::Frame(_) => {}
                Got::Closed(code) => anyhow::bail!("closed with {code}"),
            }
        }
    }
}
