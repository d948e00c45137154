//! Each way in which a proxy treats a connection, against an echo on loopback.

use tokio::time::timeout;

use super::*;

const WITHIN: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(100);

async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    address
}

async fn proxied() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(&echo().await, 1).await.expect("a proxy");
    let stream = TcpStream::connect(proxy.address()).await.expect("connected");
    (proxy, stream)
}

async fn say(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut heard = vec![0; text.len()];
    timeout(WITHIN, stream.read_exact(&mut heard)).await??;
    Ok(String::from_utf8(heard).expect("text"))
}

#[tokio::test]
async fn without_toxics_everything_passes_and_the_end_too() {
    let (proxy, mut stream) = proxied().await;
    assert_eq!(say(&mut stream, "hello").await.expect("heard"), "hello");
    stream.shutdown().await.expect("ended");
    let mut rest = Vec::new();
    timeout(WITHIN, stream.read_to_end(&mut rest)).await.expect("in time").expect("an end, not a reset");
    assert_eq!(proxy.counted(), Counted { connections: 1, ..Counted::default() });
}

#[tokio::test]
async fn latency_delays_each_piece() {
    let (proxy, mut stream) = proxied().await;
    proxy.set(Toxics { latency: Duration::from_millis(60), ..Toxics::default() });
    let begun = Instant::now();
    say(&mut stream, "hello").await.expect("heard");
    assert!(begun.elapsed() >= Duration::from_millis(120), "there and back");
    assert_eq!(proxy.counted().delayed, 2);
}

#[tokio::test]
async fn a_black_hole_holds_what_is_said_until_it_heals() {
    let (proxy, mut stream) = proxied().await;
    say(&mut stream, "before").await.expect("heard");
    proxy.set(Toxics { holds_answers: true, ..Toxics::default() });
    stream.write_all(b"during").await.expect("taken");
    let mut heard = [0; 6];
    assert!(timeout(SILENCE, stream.read_exact(&mut heard)).await.is_err(), "nothing comes back");
    proxy.heal();
    timeout(WITHIN, stream.read_exact(&mut heard)).await.expect("in time").expect("heard");
    assert_eq!((&heard, proxy.counted().held), (b"during", 1));
}

#[tokio::test]
async fn connections_are_refused_reset_and_cut() {
    let (proxy, mut stream) = proxied().await;
    say(&mut stream, "before").await.expect("heard");
    proxy.reset();
    assert!(say(&mut stream, "after").await.is_err(), "it was reset");

    proxy.set(Toxics { refuses: true, ..Toxics::default() });
    let mut refused = TcpStream::connect(proxy.address()).await.expect("taken before it is refused");
    assert!(say(&mut refused, "hello").await.is_err(), "it was refused");

    proxy.set(Toxics { cut_after: Some(8), ..Toxics::default() });
    let mut cut = TcpStream::connect(proxy.address()).await.expect("connected");
    assert_eq!(say(&mut cut, "hello").await.expect("heard"), "hello");
    assert!(say(&mut cut, "hello").await.is_err(), "it was cut");
    let counted = proxy.counted();
    assert_eq!((counted.refused, counted.reset), (1, 2));
}

#[tokio::test]
async fn bandwidth_is_bounded_and_a_new_upstream_is_used() {
    let (proxy, mut stream) = proxied().await;
    proxy.set(Toxics { bytes_per_second: Some(100), ..Toxics::default() });
    let begun = Instant::now();
    say(&mut stream, "0123456789").await.expect("heard");
    assert!(begun.elapsed() >= Duration::from_millis(200), "a tenth of a second each way");
    proxy.heal();
    proxy.lead_to("127.0.0.1:1");
    let mut nowhere = TcpStream::connect(proxy.address()).await.expect("taken");
    assert!(say(&mut nowhere, "hello").await.is_err(), "nobody is there");
}

#[test]
fn a_broker_is_told_to_be_at_the_proxy_in_whole_messages_only() {
    let replace = Replace { from: b"127.0.0.1\0\0\x23\x84".to_vec(), to: b"127.0.0.1\0\0\x30\x39".to_vec() };
    let message = |content: &[u8]| {
        let length = u32::try_from(content.len()).expect("short");
        [length.to_be_bytes().as_slice(), content].concat()
    };
    let told = message(b"x127.0.0.1\0\0\x23\x84y");
    let mut rest = [told.as_slice(), &told[..7]].concat();
    assert_eq!(replace.whole_messages(&mut rest), message(b"x127.0.0.1\0\0\x30\x39y"));
    assert_eq!(rest, &told[..7]);
    rest.extend_from_slice(&told[7..]);
    assert_eq!(replace.whole_messages(&mut rest), message(b"x127.0.0.1\0\0\x30\x39y"));
    assert!(rest.is_empty());
}
