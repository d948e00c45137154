//! Hands codes to the provider behind the caller's back, so that nobody learns from an answer how that went.

use std::{sync::Arc, time::Duration};

use domain::{ports::Sms, user::Phone};
use platform::Process;
use tokio::sync::Semaphore;

use crate::{
    config::Limits,
    metrics::{AuthEvent, Metrics},
};

/// Text messages under way: a bounded number, each with a deadline, all awaited when the process stops.
pub struct Deliveries {
    sms: Arc<dyn Sms>,
    slots: Arc<Semaphore>,
    timeout: Duration,
    process: Process,
    metrics: Metrics,
}

impl Deliveries {
    /// With that provider.
    pub fn new(sms: Arc<dyn Sms>, limits: &Limits, process: &Process, metrics: Metrics) -> Self {
        let slots = Arc::new(Semaphore::new(limits.sms_in_flight as usize));
        Self { sms, slots, timeout: limits.sms_timeout, process: process.clone(), metrics }
    }

    pub(super) fn deliver(&self, phone: Phone, code: String) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            return lost(&self.metrics, "too many are under way");
        };
        let (sms, timeout, metrics) = (self.sms.clone(), self.timeout, self.metrics.clone());
        drop(self.process.spawn_child(async move {
            let _slot = slot;
            match tokio::time::timeout(timeout, sms.send(&phone, &code)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => lost(&metrics, &error.to_string()),
                Err(_) => lost(&metrics, "the provider took too long"),
            }
        }));
    }
}

fn lost(metrics: &Metrics, why: &str) {
    tracing::warn!(event = "auth.otp_delivery_failed", error.message = %why, "a code was not sent");
    metrics.auth(AuthEvent::OtpNotDelivered);
}
