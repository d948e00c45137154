//! The service `messaging.v1.Users`: profiles, and contacts by phone.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use domain::{
    Clock, Error, ErrorKind, Millis,
    error::Detail,
    ids::UserId,
    limits::LOOKUP_PHONES,
    ports::{self, auth_limits::Counter},
    user::{DisplayName, Phone, PhoneHash, User},
};
use platform::telemetry::SECURITY;
use proto::messaging::v1 as pb;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    auth::phone_hash,
    caller::{Callers, refuse},
    config::Limits,
    rate_limits::{Limit, RateLimits, WhenAway},
};

/// Profiles, and contacts by phone.
pub struct Users {
    callers: Callers,
    people: Arc<dyn ports::Users>,
    rate_limits: RateLimits,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

impl Users {
    /// On those ports.
    pub fn new(
        callers: Callers,
        people: Arc<dyn ports::Users>,
        rate_limits: RateLimits,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { callers, people, rate_limits, limits, clock }
    }

    async fn me(&self, metadata: &MetadataMap) -> Result<pb::Profile, Error> {
        let holder = self.callers.authenticate(metadata).await?;
        self.profile(holder.user).await
    }

    async fn rename(&self, metadata: &MetadataMap, asked: &pb::UpdateMeRequest) -> Result<pb::Profile, Error> {
        let holder = self.callers.authenticate(metadata).await?;
        let Some(name) = &asked.display_name else { return self.profile(holder.user).await };
        let name = DisplayName::new(name)?;
        let renamed = self.people.rename(holder.user, &name, self.clock.now()).await?;
        renamed.as_ref().map(show).ok_or_else(no_user)
    }

    async fn profile(&self, id: UserId) -> Result<pb::Profile, Error> {
        self.people.user(id).await?.as_ref().map(show).ok_or_else(no_user)
    }

    async fn public(&self, metadata: &MetadataMap, asked: &pb::GetUserRequest) -> Result<pb::PublicProfile, Error> {
        self.callers.authenticate(metadata).await?;
        // Rows that are not people share the table: only the form of a user's id is asked for.
        let id: UserId = asked.user_id.parse().map_err(|_| no_user())?;
        let user = self.people.user(id).await?.ok_or_else(no_user)?;
        Ok(pb::PublicProfile {
            user_id: user.id.to_string(),
            display_name: name_of(&user),
            created_at: Some(at(user.created_at)),
        })
    }

    async fn lookup(
        &self,
        metadata: &MetadataMap,
        asked: &pb::LookupUsersRequest,
    ) -> Result<pb::LookupUsersResponse, Error> {
        let holder = self.callers.authenticate(metadata).await?;
        let phones = read_phones(&asked.phone_numbers)?;
        for (counter, times, within) in [
            (Counter::LookupOfUserMinute(holder.user), self.limits.lookup_per_minute, Duration::from_mins(1)),
            (Counter::LookupOfUserHour(holder.user), self.limits.lookup_per_hour, Duration::from_hours(1)),
        ] {
            self.rate_limits.admit(counter, Limit { times, within, when_away: WhenAway::Allow }).await?;
        }
        let hashes: Vec<PhoneHash> = phones.iter().map(phone_hash).collect();
        let ids = self.people.by_phone(&hashes).await?;
        let found: Vec<UserId> = ids.values().copied().collect();
        let found: HashMap<UserId, User> =
            self.people.users(&found).await?.into_iter().map(|user| (user.id, user)).collect();
        let mut answer = pb::LookupUsersResponse::default();
        for (phone, hash) in phones.iter().zip(&hashes) {
            let phone_number = phone.as_str().to_owned();
            match ids.get(hash).and_then(|id| found.get(id)) {
                Some(user) => answer.users.push(pb::FoundUser {
                    phone_number,
                    user_id: user.id.to_string(),
                    display_name: name_of(user),
                }),
                None => answer.not_found.push(phone_number),
            }
        }
        let (who, asked, hits) = (holder.user, phones.len(), answer.users.len());
        tracing::info!(
            target: SECURITY,
            event = "users.lookup",
            user_id = %who,
            asked,
            hits,
            "{who} looked {asked} phones up"
        );
        Ok(answer)
    }
}

/// Each number once, in the order of the request.
fn read_phones(texts: &[String]) -> Result<Vec<Phone>, Error> {
    if texts.is_empty() {
        return Err(Error::field("phone_numbers", "REQUIRED", "name 1 to 100 phone numbers"));
    }
    if texts.len() > LOOKUP_PHONES {
        return Err(Error::field("phone_numbers", "TOO_LONG", "name 1 to 100 phone numbers"));
    }
    let mut phones: Vec<Phone> = Vec::with_capacity(texts.len());
    let mut faults = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match Phone::new(text) {
            Ok(phone) if phones.contains(&phone) => {}
            Ok(phone) => phones.push(phone),
            Err(error) => {
                let field = Cow::Owned(format!("phone_numbers[{index}]"));
                faults.push(Detail::Field(field, "INVALID".into(), Cow::Owned(error.message().to_owned())));
            }
        }
    }
    if faults.is_empty() {
        return Ok(phones);
    }
    let error = Error::new(ErrorKind::InvalidArgument, "some phone numbers are not in E.164");
    Err(faults.into_iter().fold(error, Error::with))
}

fn no_user() -> Error {
    Error::new(ErrorKind::NotFound, "no such user")
}

fn at(time: Millis) -> pb::Timestamp {
    pb::Timestamp { millis: time.0 }
}

fn name_of(user: &User) -> Option<String> {
    user.display_name.as_ref().map(|name| name.as_str().to_owned())
}

fn show(user: &User) -> pb::Profile {
    pb::Profile {
        user_id: user.id.to_string(),
        phone_number: user.phone.as_str().to_owned(),
        display_name: name_of(user),
        created_at: Some(at(user.created_at)),
        updated_at: Some(at(user.updated_at)),
    }
}

#[tonic::async_trait]
impl pb::users_server::Users for Users {
    async fn get_me(&self, call: Request<pb::GetMeRequest>) -> Result<Response<pb::Profile>, Status> {
        self.me(call.metadata()).await.map(Response::new).map_err(|error| refuse("get-me", &error))
    }

    async fn update_me(&self, call: Request<pb::UpdateMeRequest>) -> Result<Response<pb::Profile>, Status> {
        let renamed = self.rename(call.metadata(), call.get_ref()).await;
        renamed.map(Response::new).map_err(|error| refuse("update-me", &error))
    }

    async fn get_user(&self, call: Request<pb::GetUserRequest>) -> Result<Response<pb::PublicProfile>, Status> {
        let found = self.public(call.metadata(), call.get_ref()).await;
        found.map(Response::new).map_err(|error| refuse("get-user", &error))
    }

    async fn lookup_users(
        &self,
        call: Request<pb::LookupUsersRequest>,
    ) -> Result<Response<pb::LookupUsersResponse>, Status> {
        let found = self.lookup(call.metadata(), call.get_ref()).await;
        found.map(Response::new).map_err(|error| refuse("lookup", &error))
    }
}
