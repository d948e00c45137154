//! A proxy before a DynamoDB that refuses, delays, or executes without an answer: by operation, share and number.

mod http;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use self::http::{Message, read_message};
use super::{proxy::end_at_once, random::Random};

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// `ProvisionedThroughputExceededException`; nothing is executed.
    Throttle,
    /// `ThrottlingException`; nothing is executed.
    Limit,
    /// `TransactionCanceledException` with the reason `TransactionConflict`; nothing is executed.
    Conflict,
    /// Executed, and the connection ends without an answer.
    LoseAnswer,
    /// The connection is reset before anything is executed.
    Reset,
    /// Executed after so many milliseconds.
    Delay(u64),
    /// Executed and answered, so many milliseconds after it came, or later when the store itself takes longer.
    Last(u64),
    /// Neither executed nor answered until the rules change.
    Hang,
}

/// To which requests something is done.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Of that name, for example `TransactWriteItems`; all without one.
    pub operation: Option<&'static str>,
    /// So many of a thousand, by the seed.
    pub per_mille: u16,
    /// No more than so many.
    pub at_most: Option<u64>,
    /// What.
    pub action: Action,
}

impl Rule {
    /// Every request of that operation.
    pub fn each(operation: &'static str, action: Action) -> Self {
        Self { operation: Some(operation), per_mille: 1000, at_most: None, action }
    }

    /// So many of a thousand of all requests.
    pub fn some(per_mille: u16, action: Action) -> Self {
        Self { operation: None, per_mille, at_most: None, action }
    }

    /// The same, no more than so many times.
    #[must_use]
    pub fn at_most(self, count: u64) -> Self {
        Self { at_most: Some(count), ..self }
    }
}

/// A running proxy. It ends when it is dropped.
#[derive(Debug)]
pub struct StoreProxy {
    address: String,
    control: Arc<Control>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Control {
    upstream: String,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    rules: Vec<Rule>,
    random: Random,
    done: BTreeMap<(String, Action), u64>,
    passed: BTreeMap<String, u64>,
    /// Raised with each change of the rules.
    version: u64,
}

impl StoreProxy {
    /// Before `upstream`, a `host:port`; without rules all passes.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(upstream: &str, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (rules, random, done) = (Vec::new(), Random::new(seed), BTreeMap::new());
        let state = Mutex::new(State { rules, random, done, passed: BTreeMap::new(), version: 0 });
        let control = Arc::new(Control { upstream: upstream.to_owned(), state, changed: Notify::new() });
        #[expect(clippy::disallowed_methods, reason = "the proxy owns this task and ends it")]
        let task = tokio::spawn(accept(listener, control.clone()));
        Ok(Self { address, control, task })
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on these rules hold, the first that fits.
    pub fn set(&self, rules: impl Into<Vec<Rule>>) {
        let mut state = self.control.lock();
        (state.rules, state.version) = (rules.into(), state.version + 1);
        drop(state);
        self.control.changed.notify_waiters();
    }

    /// Everything passes.
    pub fn heal(&self) {
        self.set([]);
    }

    /// What was done until now, by operation.
    pub fn done(&self) -> BTreeMap<(String, Action), u64> {
        self.control.lock().done.clone()
    }

    /// How often that was done until now, whatever the operation.
    pub fn count(&self, action: Action) -> u64 {
        self.control.lock().done.iter().filter(|((_, done), _)| *done == action).map(|(_, count)| count).sum()
    }

    /// Requests of that operation that were executed and answered untouched.
    pub fn passed(&self, operation: &str) -> u64 {
        self.control.lock().passed.get(operation).copied().unwrap_or(0)
    }
}

impl Drop for StoreProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Control {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done to a request of that operation; it counts as done.
    fn decide(&self, operation: &str) -> Option<Action> {
        let mut state = self.lock();
        let State { rules, random, done, .. } = &mut *state;
        for rule in rules {
            let fits = rule.operation.is_none_or(|of| of == operation) && rule.at_most != Some(0);
            // Only a transaction can meet another.
            let fits = fits && (rule.action != Action::Conflict || operation == "TransactWriteItems");
            if fits && random.hits(rule.per_mille) {
                rule.at_most = rule.at_most.map(|left| left - 1);
                *done.entry((operation.to_owned(), rule.action)).or_default() += 1;
                return Some(rule.action);
            }
        }
        None
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let control = control.clone();
        connections.spawn(async move {
            let mut client = client;
            if serve(&mut client, &control).await.is_err() {
                end_at_once(&client);
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Answers requests until the client goes; an error ends the connection at once.
async fn serve(client: &mut TcpStream, control: &Control) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let mut upstream: Option<TcpStream> = None;
    let mut rest = Vec::new();
    while let Some(request) = read_message(client, &mut rest).await? {
        let target = request.header("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        match control.decide(&operation) {
            None => {
                let answer = forward(&mut upstream, &request, control).await?;
                *control.lock().passed.entry(operation).or_default() += 1;
                client.write_all(&answer).await?;
            }
            Some(Action::Delay(milliseconds)) => {
                sleep(Duration::from_millis(milliseconds)).await;
                let answer = forward(&mut upstream, &request, control).await?;
                client.write_all(&answer).await?;
            }
            Some(Action::Last(milliseconds)) => {
                let executed = forward(&mut upstream, &request, control);
                let (answer, ()) = tokio::join!(executed, sleep(Duration::from_millis(milliseconds)));
                client.write_all(&answer?).await?;
            }
            Some(Action::LoseAnswer) => {
                forward(&mut upstream, &request, control).await?;
                anyhow::bail!("the answer is lost");
            }
            Some(Action::Reset) => anyhow::bail!("reset"),
            Some(Action::Hang) => {
                until_changed(control).await;
                anyhow::bail!("it never answered");
            }
            Some(action @ (Action::Throttle | Action::Limit | Action::Conflict)) => {
                client.write_all(&refusal(action, &request)).await?;
            }
        }
    }
    Ok(())
}

async fn until_changed(control: &Control) {
    let version = control.lock().version;
    loop {
        let changed = control.changed.notified();
        if control.lock().version != version {
            return;
        }
        changed.await;
    }
}

/// Passes a request on, and returns the whole answer.
async fn forward(upstream: &mut Option<TcpStream>, request: &Message, control: &Control) -> anyhow::Result<Vec<u8>> {
    let mut stream = match upstream.take() {
        Some(stream) => stream,
        None => TcpStream::connect(&control.upstream).await?,
    };
    stream.set_nodelay(true)?;
    stream.write_all(&request.bytes).await?;
    let answer = read_message(&mut stream, &mut Vec::new()).await?;
    let answer = answer.ok_or_else(|| anyhow::anyhow!("the store closed the connection"))?;
    if !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
        *upstream = Some(stream);
    }
    Ok(answer.bytes)
}

fn refusal(action: Action, request: &Message) -> Vec<u8> {
    let namespace = "com.amazonaws.dynamodb.v20120810#";
    let error = |name: &str| json!({"__type": format!("{namespace}{name}"), "message": "asked for too much"});
    let body = match action {
        Action::Conflict => {
            let asked: Value = serde_json::from_slice(request.body()).unwrap_or_default();
            let count = asked["TransactItems"].as_array().map_or(1, Vec::len);
            let mut reasons = vec![json!({"Code": "None"}); count];
            reasons[0] = json!({"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"});
            json!({
                "__type": format!("{namespace}TransactionCanceledException"),
                "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
                "CancellationReasons": reasons,
            })
        }
        Action::Limit => error("ThrottlingException"),
        Action::Throttle | Action::LoseAnswer | Action::Reset | Action::Delay(_) | Action::Last(_) | Action::Hang => {
            error("ProvisionedThroughputExceededException")
        }
    };
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: injected\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests;
