//! The REST side of a client.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

/// What the server answered instead of what was asked for.
#[derive(Clone, Debug)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// `error.code`.
    pub code: String,
    /// `error.message`.
    pub message: String,
    /// `error.details`.
    pub details: Value,
}

impl Refused {
    /// Whether an error is a refusal with that code.
    pub fn is(error: &anyhow::Error, code: &str) -> bool {
        error.downcast_ref::<Self>().is_some_and(|refused| refused.code == code)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Refused {}

/// The tokens of a login.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tokens {
    /// Shown with each request.
    pub access_token: String,
    /// Exchanged for the next pair.
    pub refresh_token: String,
}

/// Oneself.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Id.
    pub user_id: String,
    /// Phone number; others never see it.
    pub phone_number: String,
    /// What others see.
    pub display_name: Option<String>,
}

/// Somebody in a chat.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// Id.
    pub user_id: String,
    /// `owner`, `admin`, `member`.
    #[serde(default)]
    pub role: String,
    /// What others see.
    pub display_name: Option<String>,
}

/// A line of the chat list.
#[derive(Clone, Debug, Deserialize)]
pub struct ChatSummary {
    /// Id.
    pub chat_id: String,
    /// `direct`, `group`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A group's name.
    pub name: Option<String>,
    /// The other one of a direct chat.
    #[serde(default)]
    pub other_member: Option<Member>,
    /// The last message, if there is one.
    #[serde(default)]
    pub last_message: Option<Value>,
    /// Messages that this user's clients have not acknowledged.
    #[serde(default)]
    pub pending_ack_count: u64,
    /// Everybody in it; only of one chat, not in lists.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// A message as history shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HistoryItem {
    /// Id.
    pub message_id: String,
    /// Place.
    pub sequence: u64,
    /// Sender.
    pub sender_id: String,
    /// Text.
    pub content: String,
    /// ISO 8601.
    pub created_at: String,
    /// On one's own only.
    #[serde(default)]
    pub client_message_id: Option<String>,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    pagination: Pagination,
}

#[derive(Deserialize)]
struct Pagination {
    next_cursor: Option<String>,
}

/// Calls of one device.
#[derive(Debug)]
pub struct Rest {
    http: reqwest::Client,
    server: String,
    device: Uuid,
    tokens: Mutex<Option<Tokens>>,
}

impl Rest {
    /// Not logged in yet.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(server: &str, device: Uuid) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build()?;
        Ok(Self { http, server: server.trim_end_matches('/').to_owned(), device, tokens: Mutex::new(None) })
    }

    /// The base of the REST paths, and of the WebSocket's.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// This installation's id.
    pub fn device(&self) -> Uuid {
        self.device
    }

    /// Goes on with these tokens.
    pub fn use_tokens(&self, tokens: Tokens) {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
    }

    /// The tokens in use.
    ///
    /// # Errors
    /// When not logged in.
    pub fn tokens(&self) -> anyhow::Result<Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone().context("not logged in")
    }

    /// Asks for a one-time code.
    ///
    /// # Errors
    /// [`Refused`], or when the server is not reached; likewise below.
    pub async fn request_otp(&self, phone: &str) -> anyhow::Result<()> {
        let request = self.http.post(self.url("auth/request-otp")).json(&json!({"phone_number": phone}));
        self.answer::<Data<Value>>(request).await.map(drop)
    }

    /// Exchanges a code for tokens, which it does not use yet.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn verify_otp(&self, phone: &str, code: &str) -> anyhow::Result<Tokens> {
        #[derive(Deserialize)]
        struct Login {
            tokens: Tokens,
        }
        let body = json!({"phone_number": phone, "otp": code, "device_id": self.device.to_string()});
        let request = self.http.post(self.url("auth/verify-otp")).json(&body);
        Ok(self.answer::<Data<Login>>(request).await?.data.tokens)
    }

    /// Exchanges the tokens for the next pair, which it uses from now on.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn refresh(&self) -> anyhow::Result<Tokens> {
        #[derive(Deserialize)]
        struct Refreshed {
            tokens: Tokens,
        }
        let body = json!({"refresh_token": self.tokens()?.refresh_token});
        let request = self.call(Method::POST, "auth/refresh")?.json(&body);
        let tokens = self.answer::<Data<Refreshed>>(request).await?.data.tokens;
        self.use_tokens(tokens.clone());
        Ok(tokens)
    }

    /// Oneself.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn me(&self) -> anyhow::Result<User> {
        Ok(self.answer::<Data<User>>(self.call(Method::GET, "users/me")?).await?.data)
    }

    /// Changes what others see.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn set_name(&self, name: &str) -> anyhow::Result<User> {
        let request = self.call(Method::PATCH, "users/me")?.json(&json!({"display_name": name}));
        Ok(self.answer::<Data<User>>(request).await?.data)
    }

    /// The registered users of these phones, and the phones of nobody.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn lookup(&self, phones: &[&str]) -> anyhow::Result<(Vec<Member>, Vec<String>)> {
        #[derive(Deserialize)]
        struct Found {
            users: Vec<Member>,
            not_found: Vec<String>,
        }
        let request = self.call(Method::POST, "users/lookup")?.json(&json!({"phone_numbers": phones}));
        let found = self.answer::<Data<Found>>(request).await?.data;
        Ok((found.users, found.not_found))
    }

    /// The direct chat with a user, made if it is not there.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn direct(&self, other: &str) -> anyhow::Result<ChatSummary> {
        let body = json!({"type": "direct", "member_ids": [other]});
        Ok(self.answer::<Data<ChatSummary>>(self.call(Method::POST, "chats")?.json(&body)).await?.data)
    }

    /// A new group.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn group(&self, name: &str, others: &[&str]) -> anyhow::Result<ChatSummary> {
        let body = json!({"type": "group", "name": name, "member_ids": others});
        Ok(self.answer::<Data<ChatSummary>>(self.call(Method::POST, "chats")?.json(&body)).await?.data)
    }

    /// One chat with its members.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn chat(&self, chat: &str) -> anyhow::Result<ChatSummary> {
        Ok(self.answer::<Data<ChatSummary>>(self.call(Method::GET, &format!("chats/{chat}"))?).await?.data)
    }

    /// All of one's chats, the latest first.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn chats(&self) -> anyhow::Result<Vec<ChatSummary>> {
        self.all_pages("chats?limit=100").await
    }

    /// All messages of a chat, the oldest first.
    ///
    /// # Errors
    /// See [`Rest::request_otp`].
    pub async fn history(&self, chat: &str) -> anyhow::Result<Vec<HistoryItem>> {
        self.all_pages(&format!("chats/{chat}/messages?limit=100&direction=forward")).await
    }

    async fn all_pages<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let request = match &cursor {
                Some(cursor) => self.call(Method::GET, path)?.query(&[("cursor", cursor)]),
                None => self.call(Method::GET, path)?,
            };
            let page = self.answer::<Page<T>>(request).await?;
            items.extend(page.data);
            cursor = page.pagination.next_cursor;
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// Any call, logged in: for tests of what the methods above don't do.
    ///
    /// # Errors
    /// When not logged in.
    pub fn call(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        Ok(self
            .http
            .request(method, self.url(path))
            .bearer_auth(self.tokens()?.access_token)
            .header("x-device-id", self.device.to_string()))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.server)
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let response = request
            .header("x-device-id", self.device.to_string())
            .send()
            .await
            .with_context(|| format!("{} is not reached", self.server))?;
        let status = response.status();
        let body = response.bytes().await?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .with_context(|| format!("an answer that is not understood: {}", String::from_utf8_lossy(&body)));
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| body["error"][name].as_str().unwrap_or("?").to_owned();
        let details = body["error"]["details"].clone();
        Err(Refused { status: status.as_u16(), code: text("code"), message: text("message"), details }.into())
    }
}
