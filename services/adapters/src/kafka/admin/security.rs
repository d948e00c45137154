//! How one proves oneself to brokers, and brokers to us.

use platform::Secret;
use rdkafka::ClientConfig;

/// What a connection to brokers looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Who we are.
    pub authentication: Authentication,
    /// Encryption; without it everything is in the clear.
    pub tls: Option<Tls>,
}

/// Who we are to brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// Nobody, or whom the certificate of [`Tls::identity`] names.
    #[default]
    None,
    /// SCRAM-SHA-512.
    Scram {
        /// The user.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// The identity that AWS gave to this process.
    AwsIam,
}

/// Encryption of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who signs brokers' certificates, as PEM; without it the machine's own list.
    pub authorities: Option<String>,
    /// Our certificate, where brokers ask for one.
    pub identity: Option<Identity>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The chain, as PEM, ours first.
    pub certificate: String,
    /// The key, as PEM, not encrypted.
    pub key: Secret,
}

/// A kind of connection that this build has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not supported yet")]
pub struct Unsupported(pub &'static str);

impl Security {
    /// Writes the settings of the connection into a client's.
    ///
    /// # Errors
    /// When this build has no such connection.
    pub fn apply(&self, client: &mut ClientConfig) -> Result<(), Unsupported> {
        let protocol = match (&self.authentication, &self.tls) {
            (Authentication::AwsIam, None) => return Err(Unsupported("AWS IAM authentication to Kafka without TLS")),
            (Authentication::None, None) => "plaintext",
            (Authentication::None, Some(_)) => "ssl",
            (Authentication::Scram { .. }, None) => "sasl_plaintext",
            (Authentication::Scram { .. } | Authentication::AwsIam, Some(_)) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        match &self.authentication {
            Authentication::None => {}
            Authentication::Scram { user, password } => {
                client.set("sasl.mechanism", "SCRAM-SHA-512").set("sasl.username", user);
                client.set("sasl.password", password.expose());
            }
            // The client makes its tokens: see `super::iam`.
            Authentication::AwsIam => {
                client.set("sasl.mechanism", "OAUTHBEARER");
            }
        }
        if let Some(tls) = &self.tls {
            match &tls.authorities {
                Some(authorities) => client.set("ssl.ca.pem", authorities),
                None => client.set("ssl.ca.location", "probe"),
            };
            if let Some(identity) = &tls.identity {
                client.set("ssl.certificate.pem", &identity.certificate);
                client.set("ssl.key.pem", identity.key.expose());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(security: &Security) -> ClientConfig {
        let mut client = ClientConfig::new();
        security.apply(&mut client).expect("supported");
        client
    }

    #[test]
    fn a_connection_is_as_safe_as_it_was_asked_to_be() {
        let scram = Authentication::Scram { user: "app".to_owned(), password: Secret::new("secret") };
        let tls = Some(Tls::default());
        let plain = Security::default();
        assert_eq!(applied(&plain).get("security.protocol"), Some("plaintext"));
        let encrypted = Security { tls: tls.clone(), ..plain };
        assert_eq!(applied(&encrypted).get("security.protocol"), Some("ssl"));
        assert_eq!(applied(&encrypted).get("ssl.ca.location"), Some("probe"));
        let named = Security { authentication: scram.clone(), tls: None };
        assert_eq!(applied(&named).get("security.protocol"), Some("sasl_plaintext"));
        let both = applied(&Security { authentication: scram, tls });
        assert_eq!(both.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(both.get("sasl.password"), Some("secret"));
    }

    #[test]
    fn a_role_of_aws_is_shown_over_tls_only() {
        let by_role = |tls| Security { authentication: Authentication::AwsIam, tls };
        assert!(by_role(None).apply(&mut ClientConfig::new()).is_err());
        assert_eq!(applied(&by_role(Some(Tls::default()))).get("sasl.mechanism"), Some("OAUTHBEARER"));
    }
}
