//! Services that are broken on purpose, to see that the checker of histories finds it. Without the feature `broken` all
//! are whole; no image has it. `BROKEN=NAME` chooses one of the names that docs/RELIABILITY.md lists.

/// Whether this process is broken in that way.
#[cfg(feature = "broken")]
pub fn is(name: &str) -> bool {
    static BROKEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "no setting: it is only there where the feature is")]
    let chosen = BROKEN.get_or_init(|| std::env::var("BROKEN").unwrap_or_default());
    chosen == name
}

/// Whether this process is broken in that way.
#[cfg(not(feature = "broken"))]
#[inline]
pub const fn is(_name: &str) -> bool {
    false
}

/// The same, once in `count` times.
#[cfg(feature = "broken")]
pub fn one_in(count: u64, name: &str) -> bool {
    static TIMES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    is(name) && TIMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(count)
}

/// The same, once in `count` times.
#[cfg(not(feature = "broken"))]
#[inline]
pub const fn one_in(_count: u64, _name: &str) -> bool {
    false
}
