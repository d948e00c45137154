//! Names as the API server judges them.

/// A label of DNS: at most 63 lower-case letters, digits and hyphens, no hyphen at an end.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Labels of DNS with dots between, at most 253 characters: what most names of objects must be.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// A value of a label: nothing, or at most 63 letters, digits, `-`, `_` and `.` between letters or digits.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

/// A key of labels and annotations: a name, with an optional prefix of DNS and a slash.
pub(super) fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        None => is_name(text),
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name(name),
    }
}

/// A host and a port, of which an address or a name of DNS in any case can be made.
pub(super) fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

/// A host: a name of DNS, in any case, or an IPv4 address.
pub(super) fn is_host(text: &str) -> bool {
    is_dns_subdomain(&text.to_ascii_lowercase())
}

/// A port from 1 to 65535.
pub(super) fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The host and the optional port of a URL of one of these schemes, without a path.
pub(super) fn is_origin(text: &str, schemes: &[&str]) -> bool {
    let Some(rest) = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)?.strip_prefix("://")) else {
        return false;
    };
    match rest.split_once(':') {
        None => is_host(rest),
        Some((host, port)) => is_host(host) && is_port(port),
    }
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= 63 && text.bytes().all(inner) && outer(bytes.first()) && outer(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_by_the_api_server() {
        assert!(is_dns_subdomain("chat.example.com") && is_dns_subdomain("a"));
        for wrong in ["", "a..b", ".a", "a.", "-a", "a-", "A", "a_b", &"a".repeat(64), &"a.".repeat(127)] {
            assert!(!is_dns_subdomain(wrong), "{wrong}");
        }
        assert!(is_key("team") && is_key("example.com/Team_1.x"));
        for wrong in ["", "/a", "a/", "A.com/a", "a..b/c", "a/b/c", "-a", "é", &"a".repeat(64)] {
            assert!(!is_key(wrong), "{wrong}");
        }
        assert!(is_label_value("") && is_label_value("a.B_c-9"));
        assert!(!is_label_value("-a") && !is_label_value("a/b"));
    }

    #[test]
    fn addresses_have_a_host_and_a_port_that_exist() {
        assert!(is_host_port("Kafka.example.com:9092") && is_host_port("10.0.0.1:65535"));
        for wrong in ["kafka", "kafka:", "kafka:0", "kafka:65536", ":9092", "a..b:1", "a:+1"] {
            assert!(!is_host_port(wrong), "{wrong}");
        }
        assert!(is_origin("http://store:8000", &["http", "https"]) && is_origin("https://a.b", &["https"]));
        for wrong in ["store:8000", "http://", "http://a:99999", "http://a/b", "ftp://a"] {
            assert!(!is_origin(wrong, &["http", "https"]), "{wrong}");
        }
    }
}
