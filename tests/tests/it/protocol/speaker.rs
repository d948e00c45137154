//! A client of either encoding that does what a test says, and shows every frame that comes.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use proto::{
    frames,
    messaging::v1::{
        Ack, ClientFrame, ConnectionEstablished, ErrorFrame, Heartbeat, SendMessage, SendMessageAck, ServerFrame,
        SyncRequest, SyncResponse, client_frame::Payload as Ask, server_frame::Payload,
    },
};
use tests::client::Client;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::Request},
};

use super::place::Place;

pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// Both encodings: every rule holds in each (D2.2).
pub(crate) const BOTH: [&str; 2] = [frames::JSON, frames::PROTOBUF];

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Got {
    Frame(Box<ServerFrame>),
    Closed(u16),
}

/// A connection of one person, on a device of its own.
#[derive(Debug)]
pub(crate) struct Speaker {
    socket: WebSocketStream<TcpStream>,
    is_binary: bool,
    pub(crate) established: ConnectionEstablished,
    pub(crate) device: String,
}

pub(crate) fn new_id() -> String {
    uuid::Builder::from_random_bytes(random()).into_uuid().to_string()
}

/// The access token of a login.
pub(crate) fn token_of(client: &Client) -> anyhow::Result<String> {
    Ok(client.rest().tokens()?.access_token)
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    bytes
}

pub(crate) fn text(chat: &str, content: &str) -> SendMessage {
    let (chat_id, content) = (chat.to_owned(), content.to_owned());
    SendMessage { client_message_id: new_id(), chat_id, content, content_type: String::new() }
}

impl Speaker {
    /// Connects at the gateway whose turn it is, as another device of who is logged in.
    pub(crate) async fn connect(place: &Place, client: &Client, protocol: &str) -> anyhow::Result<Self> {
        Self::connect_at(place, place.turn(), client, protocol).await
    }

    /// The same at that gateway.
    pub(crate) async fn connect_at(
        place: &Place,
        gateway: usize,
        client: &Client,
        protocol: &str,
    ) -> anyhow::Result<Self> {
        Self::connect_with(place.gateway(gateway).await?, &token_of(client)?, protocol, None).await
    }

    /// The same with a receive buffer of the kernel that is soon full.
    pub(crate) async fn connect_narrow(
        place: &Place,
        gateway: usize,
        client: &Client,
        protocol: &str,
    ) -> anyhow::Result<Self> {
        Self::connect_with(place.gateway(gateway).await?, &token_of(client)?, protocol, Some(4096)).await
    }

    /// Connects with that token, at the gateway whose turn it is.
    pub(crate) async fn connect_by(place: &Place, token: &str, protocol: &str) -> anyhow::Result<Self> {
        Self::connect_with(place.gateway(place.turn()).await?, token, protocol, None).await
    }

    /// The same with nothing to show but the URL.
    pub(crate) async fn connect_by_url(place: &Place, token: &str, protocol: &str) -> anyhow::Result<Self> {
        let (address, device) = (place.gateway(place.turn()).await?, new_id());
        let request = format!("ws://{address}/v1/ws?token={token}&device_id={device}").into_client_request()?;
        Self::establish(TcpStream::connect(address).await?, request, device, protocol).await
    }

    async fn connect_with(
        address: SocketAddr,
        token: &str,
        protocol: &str,
        buffer: Option<u32>,
    ) -> anyhow::Result<Self> {
        let tcp = TcpSocket::new_v4()?;
        if let Some(bytes) = buffer {
            tcp.set_recv_buffer_size(bytes)?;
        }
        let device = new_id();
        let mut request = format!("ws://{address}/v1/ws").into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        request.headers_mut().insert("x-device-id", device.parse()?);
        Self::establish(tcp.connect(address).await?, request, device, protocol).await
    }

    /// Shakes hands, and waits for the first frame.
    async fn establish(
        stream: TcpStream,
        mut request: Request<()>,
        device: String,
        protocol: &str,
    ) -> anyhow::Result<Self> {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse()?);
        let (socket, response) = timeout(WITHIN, client_async(request, stream)).await??;
        let spoken = response.headers().get("sec-websocket-protocol").context("no subprotocol was agreed")?;
        anyhow::ensure!(spoken == protocol, "{spoken:?} instead of {protocol}");
        let is_binary = protocol == frames::PROTOBUF;
        let established = ConnectionEstablished::default();
        let mut speaker = Self { socket, is_binary, established, device };
        match speaker.frame().await?.payload {
            Some(Payload::ConnectionEstablished(first)) => speaker.established = first,
            other => anyhow::bail!("{other:?} came first"),
        }
        Ok(speaker)
    }

    pub(crate) async fn ask(&mut self, request_id: &str, payload: Ask) -> anyhow::Result<()> {
        let frame = ClientFrame { request_id: request_id.to_owned(), trace_context: None, payload: Some(payload) };
        let message = if self.is_binary {
            Message::binary(frames::client_to_protobuf(&frame))
        } else {
            Message::text(frames::client_to_json(&frame))
        };
        self.raw(message).await
    }

    pub(crate) async fn raw(&mut self, message: Message) -> anyhow::Result<()> {
        timeout(WITHIN, self.socket.send(message)).await?.context("not sent")
    }

    /// Sends bytes that are no frame, in the form that was agreed.
    pub(crate) async fn raw_bytes(&mut self, json: &str, protobuf: &[u8]) -> anyhow::Result<()> {
        let message = if self.is_binary { Message::binary(protobuf.to_vec()) } else { Message::text(json) };
        self.raw(message).await
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<Got> {
        loop {
            let message = timeout(WITHIN, self.socket.next()).await.context("nothing came in time")?;
            match message.context("gone without a close")?? {
                Message::Text(text) if !self.is_binary => {
                    let frame = frames::server_from_json(&text);
                    return Ok(Got::Frame(Box::new(frame.map_err(|unread| anyhow::anyhow!("{text}: {unread:?}"))?)));
                }
                Message::Binary(bytes) if self.is_binary => {
                    let frame = frames::server_from_protobuf(&bytes);
                    return Ok(Got::Frame(Box::new(frame.map_err(|unread| anyhow::anyhow!("{unread:?}"))?)));
                }
                Message::Close(frame) => return Ok(Got::Closed(frame.map_or(1005, |frame| frame.code.into()))),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                other @ (Message::Text(_) | Message::Binary(_)) => anyhow::bail!("in the other encoding: {other:?}"),
            }
        }
    }

    /// The next frame, which must be one. News of chats come when they come, and are passed over.
    pub(crate) async fn frame(&mut self) -> anyhow::Result<ServerFrame> {
        loop {
            match self.next().await? {
                Got::Frame(frame) if matches!(frame.payload, Some(Payload::ChatCreated(_))) => {}
                Got::Frame(frame) => return Ok(*frame),
                Got::Closed(code) => anyhow::bail!("closed with {code}"),
            }
        }
    }

    /// The answer to a request; pushes before it are passed over.
    pub(crate) async fn answer(&mut self, request_id: &str) -> anyhow::Result<Payload> {
        loop {
            let frame = self.frame().await?;
            if frame.request_id == request_id {
                return frame.payload.context("no payload");
            }
            anyhow::ensure!(frame.request_id.is_empty(), "{frame:?} answers nothing that was asked last");
        }
    }

    /// The error that answers a request, or with no id the next unsolicited one.
    pub(crate) async fn error(&mut self, request_id: &str) -> anyhow::Result<ErrorFrame> {
        loop {
            let frame = self.frame().await?;
            match frame.payload {
                Some(Payload::Error(error)) if frame.request_id == request_id => return Ok(error),
                _ if frame.request_id.is_empty() => {}
                other => anyhow::bail!("{other:?} is not the error"),
            }
        }
    }

    /// Sends a text and returns its acknowledgement.
    pub(crate) async fn say(&mut self, chat: &str, content: &str) -> anyhow::Result<SendMessageAck> {
        let request = new_id();
        self.ask(&request, Ask::SendMessage(text(chat, content))).await?;
        match self.answer(&request).await? {
            Payload::SendMessageAck(ack) => Ok(ack),
            other => anyhow::bail!("{other:?} is no acknowledgement"),
        }
    }

    /// A page of a chat.
    pub(crate) async fn page(&mut self, chat: &str, after: u64, limit: Option<u32>) -> anyhow::Result<SyncResponse> {
        let request = new_id();
        let sync = SyncRequest { chat_id: chat.to_owned(), last_acked_sequence: after, limit };
        self.ask(&request, Ask::SyncRequest(sync)).await?;
        match self.answer(&request).await? {
            Payload::SyncResponse(page) => Ok(page),
            other => anyhow::bail!("{other:?} is no page"),
        }
    }

    /// Asks for a sign of life; but for messages of others, the answer must be the very next frame.
    pub(crate) async fn nothing_before_this_heartbeat(&mut self) -> anyhow::Result<()> {
        let request = new_id();
        self.ask(&request, Ask::Heartbeat(Heartbeat::default())).await?;
        loop {
            let frame = self.frame().await?;
            if frame.request_id == request {
                return Ok(());
            }
            let is_push = frame.request_id.is_empty() && matches!(frame.payload, Some(Payload::Message(_)));
            anyhow::ensure!(is_push, "{frame:?} came before");
        }
    }

    pub(crate) async fn acknowledge(&mut self, request_id: &str, chat: &str, sequence: u64) -> anyhow::Result<()> {
        let ack = Ack { chat_id: chat.to_owned(), last_acked_sequence: sequence, last_read_sequence: None };
        self.ask(request_id, Ask::Ack(ack)).await
    }
}
