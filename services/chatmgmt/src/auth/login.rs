//! A code becomes a session: counted before it is compared, used up in one transaction (D6.2).

use std::collections::BTreeMap;

use domain::{
    Error, ErrorKind, Millis,
    ids::{DeviceId, SessionId, UserId},
    ports::{auth_limits::Counter, otp_requests::Attempt, sessions::Opened},
    session::{Proof, Session, TokenPair},
    user::{Phone, PhoneHash, User},
};
use platform::{telemetry::SECURITY, wire};
use proto::messaging::v1 as pb;
use tonic::metadata::MetadataMap;

use super::{Auth, phone_hash, read_device, read_phone, tokens::RefreshToken};
use crate::{
    metrics::AuthEvent,
    rate_limits::{Limit, WhenAway, too_often},
};

/// How often a login begins again because the phone was registered, or an id taken, meanwhile.
const RACES: u32 = 3;

impl Auth {
    pub(super) async fn log_in(
        &self,
        metadata: &MetadataMap,
        asked: &pb::VerifyOtpRequest,
    ) -> Result<pb::VerifyOtpResponse, Error> {
        let phone = read_phone(&asked.phone_number)?;
        let code = read_code(&asked.otp)?;
        let device = read_device(metadata, &asked.device_id)?;
        let hash = phone_hash(&phone);

        let proof = self.prove(hash, code).await?;
        let answer = self.open_session(&phone, device, &proof).await?;

        if let Err(error) = self.needs.rate_limits.forget(Counter::VerifyOfPhone(hash)).await {
            tracing::warn!(
                event = "auth.count_stays",
                phone_hash = %hash,
                error.code = wire::code(&error),
                error.message = %error,
                "the count of {hash} stays"
            );
        }
        self.needs.metrics.auth(AuthEvent::OtpVerified);
        Ok(answer)
    }

    /// Whether the code is right, after the attempt was counted. Every way through compares.
    async fn prove(&self, phone: PhoneHash, code: &str) -> Result<Proof, Error> {
        if let Some(wait) = self.needs.bars.locked_out(phone).await? {
            return Err(too_often(wait));
        }
        let limit =
            Limit { times: self.limits.verify_per_phone, within: self.limits.verify_within, when_away: WhenAway::Deny };
        self.needs.rate_limits.admit(Counter::VerifyOfPhone(phone), limit).await?;

        let now = self.needs.clock.now();
        let attempts = self.limits.otp_attempts;
        let (request, attempt) = match self.needs.otp_requests.count_attempt(phone, now, attempts).await? {
            Attempt::Counted(request, attempt) => (Some(request), attempt),
            Attempt::Spent => {
                self.lock_out(phone).await?;
                return Err(too_often(self.limits.otp_lockout));
            }
            Attempt::NoneGood => (None, 0),
        };
        if self.codes.is_right(code, phone, request.as_ref())
            && let Some(request) = request
        {
            return Ok(Proof { phone, mac: request.mac, at: now });
        }
        if attempt >= attempts {
            self.lock_out(phone).await?;
        }
        Err(self.refuse_code(phone))
    }

    async fn lock_out(&self, phone: PhoneHash) -> Result<(), Error> {
        self.needs.bars.lock_out(phone, self.limits.otp_lockout).await?;
        tracing::warn!(
            target: SECURITY,
            event = "security.rate_limited",
            phone_hash = %phone,
            "{phone} was guessed at and is locked out"
        );
        self.needs.metrics.auth(AuthEvent::LockedOut);
        Ok(())
    }

    fn refuse_code(&self, phone: PhoneHash) -> Error {
        tracing::info!(
            target: SECURITY,
            event = "auth.otp_failed",
            phone_hash = %phone,
            "a code for {phone} was refused"
        );
        self.needs.metrics.auth(AuthEvent::OtpRefused);
        Error::new(ErrorKind::InvalidOtp, "the code is wrong or no longer good")
    }

    async fn open_session(
        &self,
        phone: &Phone,
        device: DeviceId,
        proof: &Proof,
    ) -> Result<pb::VerifyOtpResponse, Error> {
        for _ in 0..RACES {
            let now = self.needs.clock.now();
            let known = self.known_user(proof.phone).await?;
            let user = known.clone().unwrap_or_else(|| User {
                id: UserId::new(&*self.needs.ids),
                phone: phone.clone(),
                display_name: None,
                created_at: now,
                updated_at: now,
            });
            let refresh = RefreshToken::draw(&*self.needs.ids);
            let session = self.new_session(user.id, device, &refresh, now);
            // Tokens are made first: what can't be signed uses up no code.
            let tokens = self.show_tokens(&session, &session.tokens, &refresh)?;
            let newcomer = if known.is_none() { Some(&user) } else { None };
            match self.needs.sessions.open(proof, &session, newcomer).await? {
                Opened::Done => {}
                Opened::CodeUsed => return Err(self.refuse_code(proof.phone)),
                Opened::PhoneTaken | Opened::IdTaken => continue,
            }
            self.make_room(&session).await;
            let (who, which) = (user.id, session.id);
            tracing::info!(
                target: SECURITY,
                event = "auth.otp_verified",
                user_id = %who,
                session_id = %which,
                "{who} began session {which}"
            );
            return Ok(show(&user, &session, tokens, known.is_none()));
        }
        Err(Error::unavailable("too many logins of one phone at once", "the login lost every race"))
    }

    async fn known_user(&self, phone: PhoneHash) -> Result<Option<User>, Error> {
        let Some(id) = self.needs.users.by_phone(&[phone]).await?.remove(&phone) else { return Ok(None) };
        let user = self.needs.users.user(id).await?;
        user.map(Some).ok_or_else(|| Error::internal(format!("a phone belongs to {id}, who does not exist")))
    }

    fn new_session(&self, user: UserId, device: DeviceId, refresh: &RefreshToken, now: Millis) -> Session {
        let ids = &*self.needs.ids;
        let tokens = TokenPair { generation: 0, refresh: refresh.hash(), access_id: ids.ulid(), made_at: now };
        Session {
            id: SessionId::new(ids),
            user,
            device,
            family: ids.ulid(),
            tokens,
            previous: None,
            created_at: now,
            expires_at: now + self.limits.session_lifetime,
        }
    }

    /// Ends the earlier session of the device, and the oldest above the limit. It follows the login, so that a
    /// login that fails ends nothing; when it fails itself, the next login does it.
    async fn make_room(&self, fresh: &Session) {
        let others = match self.needs.sessions.sessions_of(fresh.user).await {
            Ok(others) => others,
            Err(error) => {
                return tracing::warn!(
                    event = "session.replace_failed",
                    user_id = %fresh.user,
                    error.code = wire::code(&error),
                    error.message = %error,
                    "older sessions of {} stay", fresh.user
                );
            }
        };
        for old in superseded(fresh, others, self.limits.sessions_per_user as usize) {
            let ended = match self.needs.revocations.revoke_session(old, self.revoked_for()).await {
                Ok(()) => self.needs.sessions.close(old).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => {
                    tracing::info!(
                        target: SECURITY,
                        event = "session.replaced",
                        session_id = %old,
                        "session {old} gave way to {}", fresh.id
                    );
                    self.needs.metrics.auth(AuthEvent::SessionReplaced);
                }
                Err(error) => tracing::warn!(
                    event = "session.replace_failed",
                    session_id = %old,
                    error.code = wire::code(&error),
                    error.message = %error,
                    "session {old} stays"
                ),
            }
        }
    }
}

/// The sessions that end for the fresh one: those of its device, then the oldest, so that `limit` remain.
fn superseded(fresh: &Session, others: Vec<Session>, limit: usize) -> Vec<SessionId> {
    let others = others.into_iter().filter(|other| other.id != fresh.id && other.created_at <= fresh.created_at);
    let (of_device, others): (Vec<_>, Vec<_>) = others.partition(|other| other.device == fresh.device);
    let by_age: BTreeMap<_, _> = others.iter().map(|other| ((other.created_at, other.id), other.id)).collect();
    let surplus = (by_age.len() + 1).saturating_sub(limit);
    of_device.iter().map(|other| other.id).chain(by_age.into_values().take(surplus)).collect()
}

fn read_code(text: &str) -> Result<&str, Error> {
    if text.is_empty() {
        return Err(Error::field("otp", "REQUIRED", "the code is needed"));
    }
    if text.len() == 6 && text.bytes().all(|digit| digit.is_ascii_digit()) {
        Ok(text)
    } else {
        Err(Error::field("otp", "INVALID", "a code has six digits"))
    }
}

fn show(user: &User, session: &Session, tokens: pb::Tokens, is_new_user: bool) -> pb::VerifyOtpResponse {
    let at = |time: Millis| Some(pb::Timestamp { millis: time.0 });
    pb::VerifyOtpResponse {
        user: Some(pb::AuthUser {
            user_id: user.id.to_string(),
            phone_number: user.phone.as_str().to_owned(),
            display_name: user.display_name.as_ref().map(|name| name.as_str().to_owned()),
            created_at: at(user.created_at),
        }),
        session: Some(pb::Session {
            session_id: session.id.to_string(),
            device_id: session.device.to_string(),
            created_at: at(session.created_at),
            expires_at: at(session.expires_at),
        }),
        tokens: Some(tokens),
        is_new_user,
    }
}
