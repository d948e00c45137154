//! Settings of the four services: from fields of the spec to variables of the processes.
//!
//! Only what a spec names becomes a variable: of the rest the process itself knows the default, so that a newer operator
//! with the same spec and version restarts nothing.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use crds::components::{ChatMgmtSettings, FanoutSettings, GatewaySettings, IngestSettings};

use super::{Service, faults::Faults, names, times};

const DRAIN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);
const DEFAULT_DRAIN: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_hours(24);

/// Settings of one service as they are read.
pub(super) struct Variables<'a> {
    faults: &'a mut Faults,
    service: Service,
    set: BTreeMap<&'static str, String>,
}

/// What became of the settings of one service.
pub(super) struct Settings {
    /// The variables that the spec names.
    pub(super) variables: BTreeMap<&'static str, String>,
    /// How long a stopping pod may take to finish what it has begun.
    pub(super) drain: Duration,
}

impl<'a> Variables<'a> {
    pub(super) fn new(faults: &'a mut Faults, service: Service) -> Self {
        Self { faults, service, set: BTreeMap::new() }
    }

    fn number(&mut self, variable: &'static str, value: Option<i32>) {
        if let Some(value) = value {
            self.set.insert(variable, value.to_string());
        }
    }

    fn time(&mut self, variable: &'static str, field: &str, value: Option<&String>, bounds: RangeInclusive<Duration>) {
        if let Some(time) = self.read(field, value, &bounds) {
            self.set.insert(variable, times::write(time));
        }
    }

    fn read(&mut self, field: &str, value: Option<&String>, bounds: &RangeInclusive<Duration>) -> Option<Duration> {
        times::read(self.faults, &format!("spec.{}.settings.{field}", self.service), value?, bounds)
    }

    fn finish(mut self, drain: Option<&String>) -> Settings {
        let drain = self.read("drain", drain, &DRAIN).unwrap_or(DEFAULT_DRAIN);
        Settings { variables: self.set, drain }
    }

    /// `persist_deadline` is that of ingest: gateway waits as long for an answer. `proxy_hops` are those before chatmgmt.
    pub(super) fn gateway(
        mut self,
        settings: &GatewaySettings,
        persist_deadline: Option<&String>,
        proxy_hops: i32,
    ) -> Settings {
        self.number("TRUSTED_PROXY_HOPS", Some(proxy_hops));
        self.number("CONNECTION_MAXIMUM", settings.connections_per_pod);
        self.number("CONNECTION_PER_USER", settings.connections_per_user);
        self.number("CONNECTION_NEW_PER_USER", settings.new_connections_per_user);
        let age = Duration::from_mins(1)..=DAY * 7;
        self.time("CONNECTION_AGE", "connectionAge", settings.connection_age.as_ref(), age);
        let interval = Duration::from_secs(1)..=Duration::from_mins(5);
        self.time("HEARTBEAT_INTERVAL", "heartbeatInterval", settings.heartbeat_interval.as_ref(), interval);
        self.number("OUTBOUND_MESSAGES", settings.outbound_queue);
        self.number("SEND_RATE", settings.send_rate);
        self.number("SEND_BURST", settings.send_burst);
        self.number("SEND_PER_HOUR", settings.send_per_hour);
        if let Some(origins) = &settings.allowed_origins {
            for (place, origin) in origins.iter().enumerate() {
                if !names::is_origin(origin, &["http", "https"]) {
                    let message = format_args!("{origin:?} is not an origin such as https://chat.example.com");
                    self.faults.spec(format_args!("spec.gateway.settings.allowedOrigins[{place}]"), message);
                }
            }
            let mut origins = origins.clone();
            origins.sort();
            self.set.insert("CONNECTION_ORIGINS", origins.join(","));
        }
        // A wrong one is a fault of ingest's, and is named there.
        if let Some(deadline) = persist_deadline.and_then(|text| humantime::parse_duration(text).ok()) {
            self.set.insert("INGEST_TIMEOUT", times::write(deadline));
        }
        self.finish(settings.drain.as_ref())
    }

    pub(super) fn ingest(mut self, settings: &IngestSettings) -> Settings {
        self.number("BATCH_MESSAGES", settings.batch_messages);
        self.number("CHAT_QUEUE", settings.chat_queue);
        self.number("TOTAL_QUEUE", settings.total_queue);
        let deadline = Duration::from_millis(100)..=Duration::from_mins(1);
        self.time("PERSIST_DEADLINE", "persistDeadline", settings.persist_deadline.as_ref(), deadline);
        self.number("STORE_CALLS", settings.store_calls);
        self.finish(settings.drain.as_ref())
    }

    pub(super) fn fanout(mut self, settings: &FanoutSettings) -> Settings {
        self.number("DELIVERY_IN_FLIGHT", settings.deliveries_in_flight);
        let ttl = Duration::from_secs(1)..=Duration::from_hours(1);
        self.time("MEMBERSHIP_TTL", "membershipTtl", settings.membership_ttl.as_ref(), ttl);
        let hole = Duration::from_millis(100)..=Duration::from_mins(1);
        self.time("HOLE_TIMEOUT", "holeTimeout", settings.hole_timeout.as_ref(), hole);
        self.finish(settings.drain.as_ref())
    }

    pub(super) fn chatmgmt(mut self, settings: &ChatMgmtSettings, proxy_hops: i32) -> Settings {
        let lifetime = Duration::from_mins(1)..=DAY;
        self.time("ACCESS_TOKEN_LIFETIME", "accessTokenLifetime", settings.access_token_lifetime.as_ref(), lifetime);
        let lifetime = Duration::from_hours(1)..=DAY * 365;
        self.time("SESSION_LIFETIME", "sessionLifetime", settings.session_lifetime.as_ref(), lifetime);
        let lifetime = Duration::from_secs(30)..=Duration::from_hours(1);
        self.time("OTP_VALIDITY", "codeLifetime", settings.code_lifetime.as_ref(), lifetime);
        self.number("OTP_PER_PHONE", settings.codes_per_phone);
        self.number("OTP_PER_IP", settings.codes_per_address);
        self.number("GROUP_MEMBERS", settings.group_members);
        self.number("TRUSTED_PROXY_HOPS", Some(proxy_hops));
        self.finish(settings.drain.as_ref())
    }
}
