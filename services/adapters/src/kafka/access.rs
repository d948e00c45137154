//! How the brokers are reached: encryption, and who this client says it is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use domain::Clock;
use platform::Secret;
use rdkafka::ClientConfig;

use super::{
    admin::{self, Security},
    iam::{Tokens, region_of},
};

/// Whether the connection to the brokers is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Tls {
    /// Plain TCP.
    #[default]
    Off,
    /// TLS; the brokers' certificate and name are checked.
    On,
}

/// How this client proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Authentication {
    /// Not at all.
    #[default]
    None,
    /// By user and password.
    #[value(name = "scram-sha-512")]
    ScramSha512,
    /// By its certificate.
    Mtls,
    /// By the role of the machine on AWS.
    AwsIam,
}

/// Encryption and authentication.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct Access {
    /// Whether connections to the brokers are encrypted
    #[arg(long, env = "LOG_TLS", value_enum, default_value_t = Tls::Off)]
    pub log_tls: Tls,

    /// PEM file of the authorities that may sign the brokers' certificates; without it those of the machine
    #[arg(long, env = "LOG_TLS_CA_FILE")]
    pub log_tls_ca_file: Option<PathBuf>,

    /// How this client proves who it is
    #[arg(long, env = "LOG_AUTH", value_enum, default_value_t = Authentication::None)]
    pub log_auth: Authentication,

    /// File with the user, for --log-auth=scram-sha-512
    #[arg(long, env = "LOG_USER_FILE", required_if_eq("log_auth", "scram-sha-512"))]
    pub log_user_file: Option<PathBuf>,

    /// File with the password, for --log-auth=scram-sha-512
    #[arg(long, env = "LOG_PASSWORD_FILE", required_if_eq("log_auth", "scram-sha-512"))]
    pub log_password_file: Option<PathBuf>,

    /// AWS region of the brokers, for --log-auth=aws-iam; without it the one in their names
    #[arg(long, env = "LOG_REGION")]
    pub log_region: Option<String>,

    /// PEM file of this client's certificate, for --log-auth=mtls
    #[arg(long, env = "LOG_TLS_CERTIFICATE_FILE", required_if_eq("log_auth", "mtls"))]
    pub log_tls_certificate_file: Option<PathBuf>,

    /// PEM file of the certificate's key, for --log-auth=mtls
    #[arg(long, env = "LOG_TLS_KEY_FILE", required_if_eq("log_auth", "mtls"))]
    pub log_tls_key_file: Option<PathBuf>,
}

impl Access {
    /// Says to the library what the settings say.
    ///
    /// # Errors
    /// With the name of the setting that is missing, contradicts another, or names a file that can't be read.
    pub fn apply(&self, client: &mut ClientConfig) -> anyhow::Result<()> {
        self.security()?.apply(client).context("--log-auth can't be used")
    }

    /// The same as the administrator takes it.
    ///
    /// # Errors
    /// As [`Access::apply`].
    pub fn security(&self) -> anyhow::Result<Security> {
        Ok(Security { authentication: self.authentication()?, tls: self.tls()? })
    }

    /// What makes tokens for clients of these brokers, if they want any.
    pub(super) fn tokens(&self, brokers: &str, clock: Arc<dyn Clock>) -> anyhow::Result<Option<Arc<Tokens>>> {
        if self.log_auth != Authentication::AwsIam {
            return Ok(None);
        }
        let region = self.log_region.as_deref().or_else(|| region_of(brokers));
        let region = region.context("--log-region is missing: the brokers' names don't say it")?;
        Ok(Some(Arc::new(Tokens::new(region, clock))))
    }

    fn authentication(&self) -> anyhow::Result<admin::Authentication> {
        Ok(match self.log_auth {
            Authentication::None | Authentication::Mtls => admin::Authentication::None,
            Authentication::ScramSha512 => admin::Authentication::Scram {
                user: needed("--log-user-file", self.log_user_file.as_deref())?.expose().to_owned(),
                password: needed("--log-password-file", self.log_password_file.as_deref())?,
            },
            Authentication::AwsIam => admin::Authentication::AwsIam,
        })
    }

    fn tls(&self) -> anyhow::Result<Option<admin::Tls>> {
        if self.log_tls == Tls::Off {
            anyhow::ensure!(self.log_tls_ca_file.is_none(), "--log-tls-ca-file is set, but --log-tls is off");
            anyhow::ensure!(self.log_auth != Authentication::Mtls, "--log-auth=mtls needs --log-tls=on");
            return Ok(None);
        }
        let authorities = match &self.log_tls_ca_file {
            Some(file) => Some(read("--log-tls-ca-file", file)?.expose().to_owned()),
            None => None,
        };
        let identity = match self.log_auth {
            Authentication::Mtls => Some(admin::Identity {
                certificate: needed("--log-tls-certificate-file", self.log_tls_certificate_file.as_deref())?
                    .expose()
                    .to_owned(),
                key: needed("--log-tls-key-file", self.log_tls_key_file.as_deref())?,
            }),
            Authentication::None | Authentication::ScramSha512 | Authentication::AwsIam => None,
        };
        Ok(Some(admin::Tls { authorities, identity }))
    }
}

fn needed(setting: &str, file: Option<&Path>) -> anyhow::Result<Secret> {
    read(setting, file.with_context(|| format!("{setting} is missing"))?)
}

fn read(setting: &str, file: &Path) -> anyhow::Result<Secret> {
    Secret::from_file(file).with_context(|| format!("{setting} is of no use"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        access: Access,
    }

    fn applied(flags: &[&str]) -> anyhow::Result<ClientConfig> {
        let alone = Alone::try_parse_from([&["client"], flags].concat())?;
        let mut client = ClientConfig::new();
        alone.access.apply(&mut client)?;
        Ok(client)
    }

    fn refused(flags: &[&str]) -> String {
        format!("{:#}", applied(flags).expect_err("refused"))
    }

    #[test]
    fn user_and_password_come_from_files_without_the_line_break_of_an_editor() {
        let folder = std::env::temp_dir().join(format!("kafka-access-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("made");
        let (user, password) = (folder.join("user"), folder.join("password"));
        std::fs::write(&user, "app\n").expect("written");
        std::fs::write(&password, "a secret").expect("written");
        let flags = [
            "--log-auth=scram-sha-512".to_owned(),
            format!("--log-user-file={}", user.display()),
            format!("--log-password-file={}", password.display()),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let client = applied(&flags).expect("valid");
        std::fs::remove_dir_all(&folder).expect("removed");
        let got = ["security.protocol", "sasl.mechanism", "sasl.username", "sasl.password"].map(|key| client.get(key));
        assert_eq!(got, [Some("sasl_plaintext"), Some("SCRAM-SHA-512"), Some("app"), Some("a secret")]);
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_named() {
        assert_eq!(applied(&[]).expect("valid").get("security.protocol"), Some("plaintext"));
        assert_eq!(applied(&["--log-tls=on"]).expect("valid").get("security.protocol"), Some("ssl"));
        assert!(refused(&["--log-auth=scram-sha-512"]).contains("--log-user-file"));
        assert!(refused(&["--log-auth=mtls"]).contains("--log-tls-certificate-file"));
        let files = ["--log-auth=mtls", "--log-tls-certificate-file=/none", "--log-tls-key-file=/none"];
        assert!(refused(&files).contains("--log-tls=on"));
        let error = refused(&["--log-tls=on", "--log-tls-ca-file=/none"]);
        assert!(error.contains("--log-tls-ca-file") && error.contains("/none"), "{error}");
        assert!(refused(&["--log-tls-ca-file=/none"]).contains("--log-tls is off"));
        assert!(refused(&["--log-auth=aws-iam"]).contains("without TLS"));
        let by_role = applied(&["--log-auth=aws-iam", "--log-tls=on"]).expect("valid");
        assert_eq!(by_role.get("sasl.mechanism"), Some("OAUTHBEARER"));
        assert_eq!(by_role.get("security.protocol"), Some("sasl_ssl"));
    }
}
