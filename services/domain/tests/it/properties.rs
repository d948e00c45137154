//! What holds for texts, whatever bytes come: the fuzz target looks for bytes that break it.

use domain::{limits, message::Content};

/// Any bytes as the text of a message.
pub(crate) fn content(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for content_type in ["", "text/plain"] {
        let Ok(content) = Content::new(content_type, text) else { continue };
        let stored = content.as_str();
        assert!((1..=limits::CONTENT_BYTES).contains(&stored.len()));
        assert!(!stored.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{stored:?}");
        assert_eq!(Content::new(content_type, stored).as_ref().map(Content::as_str).ok(), Some(stored), "stored again");
        let preview = content.preview();
        assert!(stored.starts_with(preview) && preview.chars().count() <= limits::PREVIEW_CHARS);
    }
    assert!(Content::new("text/html", text).is_err());
}
