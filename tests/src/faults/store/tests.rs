//! What the proxy does to requests, against a store that only counts.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::{io::AsyncReadExt as _, time::timeout};

use super::*;

const WITHIN: Duration = Duration::from_secs(5);

/// A store that answers `{}`, in chunks as some do, and counts.
async fn store() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let executed = Arc::new(AtomicU64::new(0));
    let count = executed.clone();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            connections.spawn(async move {
                let mut rest = Vec::new();
                while let Ok(Some(_)) = read_message(&mut stream, &mut rest).await {
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, executed)
}

fn request(operation: &str, body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nx-amz-target: DynamoDB_20120810.{operation}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Status line and body; `None` when there was no answer.
async fn ask(stream: &mut TcpStream, operation: &str, body: &str) -> Option<(String, String)> {
    stream.write_all(request(operation, body).as_bytes()).await.ok()?;
    let answer = timeout(WITHIN, read_message(stream, &mut Vec::new())).await.expect("in time").ok()??;
    let text = String::from_utf8(answer.bytes.clone()).expect("text");
    Some((text.lines().next().unwrap_or_default().to_owned(), String::from_utf8_lossy(answer.body()).into_owned()))
}

async fn connect(proxy: &StoreProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.expect("connected")
}

#[tokio::test]
async fn refusals_are_the_stores_own_and_execute_nothing() {
    let (address, executed) = store().await;
    let proxy = StoreProxy::start(&address, 1).await.expect("a proxy");
    let mut stream = connect(&proxy).await;
    assert!(ask(&mut stream, "Query", "{}").await.expect("answered").0.contains("200"));
    proxy.set([
        Rule::each("Query", Action::Throttle).at_most(1),
        Rule::each("PutItem", Action::Limit),
        Rule::some(1000, Action::Conflict),
    ]);
    let (status, body) = ask(&mut stream, "Query", "{}").await.expect("answered");
    assert!(status.contains("400") && body.contains("ProvisionedThroughputExceededException"), "{status} {body}");
    assert!(ask(&mut stream, "PutItem", "{}").await.expect("answered").1.contains("#ThrottlingException"));
    let body = ask(&mut stream, "TransactWriteItems", r#"{"TransactItems":[{},{},{}]}"#).await.expect("answered").1;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["CancellationReasons"].as_array().expect("reasons").len(), 3, "{body}");
    assert_eq!(executed.load(Ordering::SeqCst), 1);
    // Only once, and only a transaction meets another.
    assert!(ask(&mut stream, "Query", "{}").await.expect("answered").0.contains("200"));
    assert_eq!((proxy.count(Action::Throttle), proxy.count(Action::Conflict), proxy.passed("Query")), (1, 1, 2));
}

#[tokio::test]
async fn a_lost_answer_was_executed_and_a_reset_request_was_not() {
    let (address, executed) = store().await;
    let proxy = StoreProxy::start(&address, 1).await.expect("a proxy");
    proxy.set([Rule::each("PutItem", Action::LoseAnswer), Rule::each("Query", Action::Reset)]);
    assert!(ask(&mut connect(&proxy).await, "PutItem", "{}").await.is_none());
    assert_eq!(executed.load(Ordering::SeqCst), 1);
    assert!(ask(&mut connect(&proxy).await, "Query", "{}").await.is_none());
    assert_eq!(executed.load(Ordering::SeqCst), 1);
    let done = proxy.done();
    assert_eq!(done.get(&("PutItem".to_owned(), Action::LoseAnswer)), Some(&1), "{done:?}");
}

#[tokio::test]
async fn a_request_hangs_until_the_rules_change_and_a_delayed_one_is_executed() {
    let (address, executed) = store().await;
    let proxy = StoreProxy::start(&address, 1).await.expect("a proxy");
    proxy.set([Rule::some(1000, Action::Hang)]);
    let mut stream = connect(&proxy).await;
    stream.write_all(request("Query", "{}").as_bytes()).await.expect("sent");
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(100), stream.read(&mut byte)).await.is_err(), "nothing comes");
    proxy.set([Rule::some(1000, Action::Delay(20))]);
    let ended = timeout(WITHIN, stream.read(&mut byte)).await.expect("in time");
    assert!(!matches!(ended, Ok(1..)), "it ends without an answer");
    assert!(ask(&mut connect(&proxy).await, "Query", "{}").await.expect("answered").0.contains("200"));
    assert_eq!((executed.load(Ordering::SeqCst), proxy.count(Action::Delay(20))), (1, 1));
}
