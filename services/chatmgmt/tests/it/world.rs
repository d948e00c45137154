//! One chatmgmt with its own store and cache, a clock that tests move, and the codes that its log shows.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, LazyLock, Mutex, Once,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use chatmgmt::{Settings, config::Limits, secrets};
use domain::{Clock, Ids as _, Millis};
use platform::{
    Process, Secret,
    clock::{SystemClock, SystemIds},
};
use proto::topics::Topic;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing_subscriber::{Layer, layer::SubscriberExt as _};

/// Codes by the last four digits of their phone, as the log provider wrote them, and how many there were.
static CODES: LazyLock<Mutex<HashMap<String, (String, usize)>>> = LazyLock::new(Mutex::default);
static LISTENING: Once = Once::new();
static PHONES: AtomicU32 = AtomicU32::new(0);

/// A clock that stands until it is moved.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).expect("short"), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct World {
    pub(crate) clock: Arc<TestClock>,
    cache: Option<embedded::Cache>,
    base: String,
    client: reqwest::Client,
    process: Process,
    auth_dir: PathBuf,
    _log: embedded::Log,
}

impl Drop for World {
    fn drop(&mut self) {
        self.process.stop_token().cancel();
        drop(std::fs::remove_dir_all(&self.auth_dir));
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
        Self { status, headers, body }
    }
}

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) device: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        LISTENING.call_once(|| {
            let subscriber = tracing_subscriber::registry().with(Listener);
            tracing::subscriber::set_global_default(subscriber).expect("the first one");
        });
        let clock = Arc::new(TestClock(AtomicI64::new(SystemClock.now().0)));
        let process = Process::with(clock.clone(), Arc::new(SystemIds));
        let store = embedded::Store::start(None, &process).await.expect("a store");
        let cache = embedded::Cache::start().await.expect("a cache");
        let store = adapters::dynamodb::Config {
            store_table_prefix: "test-".to_owned(),
            store_region: "us-east-1".to_owned(),
            store_endpoint: Some(store.endpoint),
            store_access_key: Some("test".to_owned()),
            store_secret_key: Some(Secret::new("test")),
        };
        adapters::dynamodb::Store::new(&store).await.create_tables().await.expect("tables");
        let redis = adapters::redis::Config::new(cache.url.clone(), "test.");
        let topics = Topic::ALL.map(|topic| (format!("test.{}", topic.name()), 4));
        let log = embedded::Log::start(&topics).expect("a log");
        let kafka = adapters::kafka::Config::new(log.brokers.clone(), "test.");
        let auth_dir = std::env::temp_dir().join(format!("chatmgmt-it-{}", SystemIds.ulid()));
        secrets::create(&auth_dir, &SystemIds, &SystemClock).expect("secrets");
        let mut settings = Settings::on_loopback(store, redis, kafka, auth_dir.clone());
        change(&mut settings.limits);
        let running = chatmgmt::start(settings, &process).await.expect("started");
        let (listener, address) =
            process.bind("test", SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        process.serve_http("rest", listener, running.http);
        tokio::time::timeout(std::time::Duration::from_secs(20), process.ready()).await.expect("ready");
        let client = reqwest::Client::new();
        Self { clock, cache: Some(cache), base: format!("http://{address}"), client, process, auth_dir, _log: log }
    }

    /// A world whose limits stand in no test's way.
    pub(crate) async fn lenient() -> Self {
        Self::with(|limits| {
            limits.otp_per_phone = 1000;
            limits.otp_per_ip = 1000;
            limits.verify_per_phone = 1000;
            limits.refresh_per_minute = 1000;
        })
        .await
    }

    /// Ends the cache, and waits until it has ended.
    pub(crate) async fn take_the_cache_away(&mut self) {
        let address = self.cache.take().expect("it was there").address;
        let deadline = Instant::now() + Duration::from_secs(10);
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            assert!(Instant::now() < deadline, "the cache does not end");
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        let sent = self.request(reqwest::Method::POST, path).json(&body).send().await;
        Answer::of(sent.expect("an answer")).await
    }

    pub(crate) async fn send(&self, login: &Login, method: reqwest::Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.request(method, path).bearer_auth(&login.access).header("x-device-id", &login.device);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }

    pub(crate) async fn get(&self, login: &Login, path: &str) -> Answer {
        self.send(login, reqwest::Method::GET, path, None).await
    }

    /// Asks for a code and reads it from the log.
    pub(crate) async fn code(&self, phone: &str) -> String {
        let before = sent(phone).map_or(0, |(_, count)| count);
        let answer = self.post("/api/v1/auth/request-otp", json!({"phone_number": phone})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match sent(phone) {
                Some((code, count)) if count > before => return code,
                _ => assert!(Instant::now() < deadline, "no code was sent"),
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn verify(&self, phone: &str, code: &str, device: &str) -> Answer {
        let body = json!({"phone_number": phone, "otp": code, "device_id": device});
        let request = self.request(reqwest::Method::POST, "/api/v1/auth/verify-otp").header("x-device-id", device);
        Answer::of(request.json(&body).send().await.expect("an answer")).await
    }

    pub(crate) async fn login(&self, phone: &str, device: &str) -> Login {
        let code = self.code(phone).await;
        let answer = self.verify(phone, &code, device).await;
        assert!(answer.status == 200 || answer.status == 201, "{answer:?}");
        let data = &answer.body["data"];
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Login {
            user: text(&data["user"]["user_id"]),
            device: device.to_owned(),
            access: text(&data["tokens"]["access_token"]),
            refresh: text(&data["tokens"]["refresh_token"]),
        }
    }

    pub(crate) async fn refresh(&self, login: &Login) -> Answer {
        let body = json!({"refresh_token": login.refresh});
        self.send(login, reqwest::Method::POST, "/api/v1/auth/refresh", Some(body)).await
    }

    pub(crate) fn now(&self) -> String {
        proto::time::to_iso(self.clock.now().0)
    }

    pub(crate) fn in_time(&self, by: Duration) -> String {
        proto::time::to_iso((self.clock.now() + by).0)
    }
}

fn sent(phone: &str) -> Option<(String, usize)> {
    CODES.lock().expect("unlocked").get(&phone[phone.len() - 4..]).cloned()
}

/// A phone that no other test uses.
pub(crate) fn phone() -> String {
    format!("+1202555{:04}", PHONES.fetch_add(1, Ordering::SeqCst))
}

/// A device that no other test uses.
pub(crate) fn device() -> String {
    let mut random = [0; 16];
    SystemIds.fill(&mut random);
    uuid::Builder::from_random_bytes(random).into_uuid().to_string()
}

/// Another code than this one.
pub(crate) fn other(code: &str) -> String {
    let number: u32 = code.parse().expect("digits");
    format!("{:06}", (number + 1) % 1_000_000)
}

/// Reads the codes off the log, as a developer does.
struct Listener;

impl<S: tracing::Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.0.get("event").map(String::as_str) != Some("otp_sent") {
            return;
        }
        if let (Some(last4), Some(code)) = (fields.0.remove("phone_last4"), fields.0.remove("code")) {
            let mut codes = CODES.lock().expect("unlocked");
            let count = codes.get(&last4).map_or(0, |(_, count)| *count);
            codes.insert(last4, (code, count + 1));
        }
    }
}

#[derive(Default)]
struct Fields(HashMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
