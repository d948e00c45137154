//! Where clients come from, and how many connections one address may have (websocket-protocol §10.2).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};
use domain::Error;
use tokio::time::Instant;

use crate::{
    config::Limits,
    limits::{Windows, limited},
};

/// Attempts of an address are counted in this time.
const ATTEMPTS_WITHIN: Duration = Duration::from_mins(1);
/// When to come back after too many open connections: nobody knows when one of them ends.
const RETRY: Duration = Duration::from_secs(5);

/// Who is counted as one: an IPv4 address, or the network of 64 bits that one IPv6 customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(IpAddr::V4(ip)),
            IpAddr::V6(ip) => Self(IpAddr::V6(Ipv6Addr::from(u128::from(ip) >> 64 << 64))),
        }
    }
}

impl Address {
    /// The address that the outermost of so many trusted proxies saw (D6.7); without any, the peer's.
    ///
    /// `None` when the proxies did not say: then nobody can be told from anybody else.
    pub fn of(headers: &HeaderMap, extensions: &Extensions, trusted_proxy_hops: usize) -> Option<Self> {
        if trusted_proxy_hops == 0 {
            let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
            return Some(peer.ip().into());
        }
        let named = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let named: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
        let at = named.len().checked_sub(trusted_proxy_hops)?;
        let ip: IpAddr = named.get(at)?.parse().ok()?;
        Some(ip.into())
    }
}

/// The addresses of clients.
#[derive(Debug)]
pub struct Addresses {
    attempts: Windows<Address>,
    open: Arc<Mutex<HashMap<Address, usize>>>,
    most: usize,
}

impl Addresses {
    /// Nobody has come yet.
    pub fn new(limits: &Limits) -> Self {
        let attempts =
            Windows::new(limits.connection_attempts_per_ip, ATTEMPTS_WITHIN, "too many attempts from this address");
        Self { attempts, open: Arc::default(), most: limits.connection_per_ip }
    }

    /// Counts an attempt, however it ends.
    ///
    /// # Errors
    /// `RateLimited` with the seconds until there is room again.
    pub fn attempt(&self, address: Address, now: Instant) -> Result<(), Error> {
        self.attempts.admit(address, now)
    }

    /// Takes a place for an open connection, which is free again when it is dropped.
    ///
    /// # Errors
    /// `RateLimited` when the address has all that it may.
    pub fn open(&self, address: Address) -> Result<Place, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return Err(limited("too many connections from this address", RETRY));
        }
        *count += 1;
        Ok(Place { open: self.open.clone(), address })
    }
}

/// The place of one open connection.
#[derive(Debug)]
pub struct Place {
    open: Arc<Mutex<HashMap<Address, usize>>>,
    address: Address,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn the_address_is_the_one_that_the_outermost_trusted_proxy_saw() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 203.0.113.7".parse().expect("a value"));
        headers.append("x-forwarded-for", "10.0.0.1".parse().expect("a value"));
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 7))));
        let of = |hops| Address::of(&headers, &extensions, hops);
        assert_eq!(of(0), Some(address("192.0.2.1")), "nobody is trusted, whatever they say");
        assert_eq!(of(1), Some(address("10.0.0.1")));
        assert_eq!(of(2), Some(address("203.0.113.7")));
        assert_eq!(of(4), None, "a proxy did not say");
        assert_eq!(Address::of(&HeaderMap::new(), &extensions, 1), None);
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        assert_eq!(address("2001:db8:1:2:3::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let addresses = Addresses::new(&Limits { connection_per_ip: 2, ..Limits::default() });
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = addresses.open(one).expect("room");
        let _second = addresses.open(one).expect("room");
        assert_eq!(addresses.open(one).expect_err("full").retry_after_seconds(), Some(5));
        assert!(addresses.open(other).is_ok(), "addresses don't share");
        drop(first);
        assert!(addresses.open(one).is_ok());
        assert_eq!(addresses.open.lock().expect("whole").len(), 1, "nobody is remembered in vain");
    }
}
