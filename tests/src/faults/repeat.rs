//! Sends messages again that were answered long ago, over a plain socket, with the same ids: the answers must be the same.

use std::collections::HashMap;

use serde_json::json;

use super::random::Random;
use crate::{
    client::Client,
    history::{
        line::{Kind, Line, What},
        recorder::Recorder,
    },
    raw::Raw,
};

/// Texts by message id, so that messages can be sent again as they were.
pub type Texts = HashMap<String, String>;

/// Another device of a person, without a connection.
pub struct Visitor {
    server: String,
    bearer: String,
    device: String,
    user: String,
}

impl Visitor {
    /// The device of a client that is going to stop.
    ///
    /// # Errors
    /// When it is not logged in.
    pub fn of(client: &Client) -> anyhow::Result<Self> {
        Ok(Self {
            server: client.rest().server().to_owned(),
            bearer: format!("Bearer {}", client.rest().tokens()?.access_token),
            device: client.rest().device().to_string(),
            user: client.user_id().to_owned(),
        })
    }

    /// The headers of its handshake.
    pub fn headers(&self) -> [(&'static str, String); 2] {
        [("authorization", self.bearer.clone()), ("x-device-id", self.device.clone())]
    }

    /// Connects to that server, and says nothing more.
    ///
    /// # Errors
    /// When the handshake is refused.
    pub async fn connect(&self, server: &str) -> anyhow::Result<Raw> {
        let headers = self.headers();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let connected = Raw::connect(server, "/v1/ws", &headers).await?;
        let mut socket = connected.map_err(|(status, body)| anyhow::anyhow!("refused with {status}: {body}"))?;
        socket.next_of("connection_established").await?;
        Ok(socket)
    }

    /// Sends up to `count` acknowledged messages of this person again. Returns how many.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn repeat(
        &self,
        name: &str,
        texts: &Texts,
        count: usize,
        recorder: &Recorder,
        random: &mut Random,
    ) -> anyhow::Result<u64> {
        let lines = recorder.lines()?;
        let mine = lines.iter().filter(|line| {
            line.what == What::Send && line.kind == Kind::Ok && line.user.as_deref() == Some(self.user.as_str())
        });
        let acknowledged: Vec<(&str, &str, &str)> = mine
            .filter_map(|line| {
                let content = texts.get(line.message_id.as_deref()?)?;
                Some((line.client_id.as_deref()?, line.chat.as_deref()?, content.as_str()))
            })
            .collect();
        if acknowledged.is_empty() {
            return Ok(0);
        }
        let mut socket = self.connect(&self.server).await?;
        for number in 0..count {
            let (client_id, chat, content) = *random.one_of(&acknowledged);
            let line = Line {
                what: What::Send,
                session: format!("{name}/repeated"),
                epoch: 1,
                user: Some(self.user.clone()),
                chat: Some(chat.to_owned()),
                client_id: Some(client_id.to_owned()),
                ..Line::default()
            };
            recorder.write(Line { kind: Kind::Invoke, ..line.clone() });
            let payload = json!({"client_message_id": client_id, "chat_id": chat, "content": content});
            let frame = json!({"type": "send_message", "request_id": format!("again-{number}"), "payload": payload});
            socket.text(frame.to_string()).await?;
            let answer = socket.next_of("send_message_ack").await?;
            recorder.write(Line {
                kind: Kind::Ok,
                sequence: answer["payload"]["sequence"].as_u64(),
                message_id: answer["payload"]["message_id"].as_str().map(str::to_owned),
                ..line
            });
        }
        Ok(count as u64)
    }
}
