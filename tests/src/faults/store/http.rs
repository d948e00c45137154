//! HTTP/1.1 messages as whole pieces of bytes: a head, and a body by its length or in chunks.

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// No message is larger: the store's limit is 4 MB of items, in JSON twice that.
const LONGEST: usize = 32 * 1024 * 1024;

/// A request or an answer.
#[derive(Debug)]
pub(super) struct Message {
    /// All of it, as it came.
    pub(super) bytes: Vec<u8>,
    head: usize,
}

impl Message {
    /// The value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.bytes[..self.head], name)
    }

    /// What follows the head.
    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[self.head..]
    }
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Reads the next message; `None` when the other side has ended before one. `rest` has what came after the last.
///
/// # Errors
/// When it breaks off, or is no HTTP.
pub(super) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    rest: &mut Vec<u8>,
) -> anyhow::Result<Option<Message>> {
    loop {
        if let Some((head, end)) = measure(rest)? {
            let bytes = rest.drain(..end).collect();
            return Ok(Some(Message { bytes, head }));
        }
        anyhow::ensure!(rest.len() < LONGEST, "a message is too large");
        if stream.read_buf(rest).await? == 0 {
            anyhow::ensure!(rest.is_empty(), "a message broke off");
            return Ok(None);
        }
    }
}

/// Where the head and the message end, once all of it is there.
fn measure(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(head) = find(bytes, b"\r\n\r\n").map(|place| place + 4) else { return Ok(None) };
    let is_chunked = header(&bytes[..head], "transfer-encoding").is_some_and(|value| value.contains("chunked"));
    if is_chunked {
        return Ok(chunks_end(&bytes[head..])?.map(|end| (head, head + end)));
    }
    let length = header(&bytes[..head], "content-length").map_or(Ok(0), str::parse::<usize>);
    let end = head + length.context("Content-Length is no number")?;
    Ok((bytes.len() >= end).then_some((head, end)))
}

fn chunks_end(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut place = 0;
    loop {
        let Some(line) = find(&bytes[place..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[place..place + line])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("the size of a chunk is no number")?;
        let end = place + line + 2 + size + 2;
        if bytes.len() < end {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(end));
        }
        place = end;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_cut_where_they_end() {
        let one = b"POST / HTTP/1.1\r\nX-Amz-Target: DynamoDB_20120810.Scan\r\ncontent-length: 2\r\n\r\n{}";
        let two = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let both = [one.as_slice(), two.as_slice()].concat();
        let (mut stream, mut rest) = (both.as_slice(), Vec::new());
        let first = read_message(&mut stream, &mut rest).await.expect("HTTP").expect("a message");
        assert_eq!((first.header("x-amz-target"), first.body()), (Some("DynamoDB_20120810.Scan"), b"{}".as_slice()));
        let second = read_message(&mut stream, &mut rest).await.expect("HTTP").expect("a message");
        assert_eq!(second.bytes, two);
        assert!(read_message(&mut stream, &mut rest).await.expect("HTTP").is_none());
        let mut broken = &one[..30];
        assert!(read_message(&mut broken, &mut Vec::new()).await.is_err(), "it broke off");
    }
}
