//! Text messages: providers of the port `Sms`.

use async_trait::async_trait;
use domain::{Error, ports, user::Phone};

/// Writes codes to the log of this process, for development (D9.2).
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSms;

#[async_trait]
impl ports::Sms for LogSms {
    async fn send(&self, phone: &Phone, code: &str) -> Result<(), Error> {
        let phone_last4 = phone.last4();
        tracing::info!(event = "otp_sent", phone_last4, code, "code for the phone that ends in {phone_last4}");
        Ok(())
    }
}
