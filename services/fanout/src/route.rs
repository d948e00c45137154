//! Hop 5 of 6: an event goes to every gateway that holds a connection of a member, in order per chat.
//!
//! What the log skipped is fetched from the store first; what a chat has passed already is dropped (D5.3).
//! Next hop: gateway/src/deliver.rs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use domain::{
    Clock, Error, ErrorKind,
    ids::{ChatId, UserId},
    message::{Sequence, StoredMessage, TEXT},
    ports::{ConnectionRegistry, MessageHistory},
    route::GatewayId,
};
use platform::{broken, trace, wire};
use proto::messaging::v1::{DeliveryAnswer, DeliveryFrame, Message, delivery_answer::Outcome, delivery_frame::Push};
use tracing::{Instrument as _, field};

use crate::{
    config::Limits,
    gateways::{Gateways, Sent},
    members::{ByChat, Members},
    metrics::{Delivered, Fate, Hole, Metrics, count},
    passed_on::{PassedOn, Place},
    read::{Event, Kind},
};

/// What routing needs.
pub struct Route {
    /// Who is in a chat.
    pub members: Members,
    /// Where users are connected.
    pub registry: Arc<dyn ConnectionRegistry>,
    /// What the log skipped.
    pub history: Arc<dyn MessageHistory>,
    /// The way to gateways.
    pub gateways: Arc<Gateways>,
    /// Queues, limits and timeouts.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Members and routes of everybody that a batch concerns, as they were when it began.
pub(crate) struct Routes {
    members: ByChat,
    gateways: HashMap<UserId, Vec<GatewayId>>,
}

/// Frames of one push on their way.
pub(crate) struct OnTheWay {
    frame: DeliveryFrame,
    /// Users with a connection.
    online: usize,
    sent: Vec<Sent>,
}

impl Route {
    /// Forgets members that changed, then looks everybody up: one round trip for the members, one for the routes.
    ///
    /// # Errors
    /// When the cache is away: nothing was passed on.
    pub(crate) async fn look_up(&self, events: &[&Event]) -> Result<Routes, Error> {
        let mut chats: Vec<ChatId> = events.iter().map(|event| event.chat).collect();
        chats.sort_unstable();
        chats.dedup();
        let mut changed: Vec<ChatId> =
            events.iter().filter(|event| matches!(event.kind, Kind::Members { .. })).map(|event| event.chat).collect();
        changed.sort_unstable();
        changed.dedup();
        // Before the pushes, so that no fill from before the change is used for them (D5.7).
        if !broken::is("deliver_to_removed") {
            self.members.forget(&changed).await?;
        }
        let members = self.members.of(&chats).await?;
        let mut users: BTreeSet<UserId> = members.values().flatten().flatten().copied().collect();
        users.extend(events.iter().filter_map(|event| match &event.kind {
            Kind::Members { removed, .. } => *removed,
            Kind::Message(..) | Kind::Description(_) => None,
        }));
        let users: Vec<UserId> = users.into_iter().collect();
        let found = self.gateways_of(&users).await?;
        Ok(Routes { members, gateways: users.into_iter().zip(found).collect() })
    }

    async fn gateways_of(&self, users: &[UserId]) -> Result<Vec<Vec<GatewayId>>, Error> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        match tokio::time::timeout(self.limits.look_up_timeout, self.registry.gateways(users)).await {
            #[cfg(feature = "broken")]
            Ok(Ok(found)) if broken::is("stale_route") => Ok(as_it_was(users, found)),
            Ok(found) => found,
            Err(late) => Err(Error::unavailable("the registry did not answer in time", late)),
        }
    }

    /// Puts an event on its way; [`Route::settle`] waits for the answers.
    ///
    /// # Errors
    /// When the members or the messages before it are not known: nothing was passed on.
    pub(crate) async fn pass_on(
        &self,
        event: &Event,
        routes: &Routes,
        passed_on: &mut PassedOn,
    ) -> Result<Vec<OnTheWay>, ErrorKind> {
        let members = match routes.members.get(&event.chat) {
            Some(Ok(members)) => members.as_slice(),
            Some(Err(kind)) => return Err(*kind),
            None => &[],
        };
        let way = |push: Push, users: &[UserId], origin: &str| {
            self.put_on_the_way(event.told(&event.span), push, users, origin, routes)
        };
        match &event.kind {
            Kind::Message(sequence, message) => {
                let mut on_the_way = Vec::new();
                match passed_on.place(event.chat, *sequence) {
                    Place::Old => {
                        self.count(Fate::Known);
                        return Ok(on_the_way);
                    }
                    Place::Next => {}
                    Place::After(last) => {
                        let skipped = self.skipped(event.chat, last, *sequence).instrument(event.span.clone());
                        for skipped in skipped.await? {
                            // Nobody knows which connection sent it; gateway and clients know what they have.
                            on_the_way.push(way(Push::Message(as_push(&skipped)), members, ""));
                            passed_on.pass(event.chat, skipped.sequence);
                        }
                    }
                }
                let span = tracing::info_span!(
                    parent: &event.span,
                    "fanout.route",
                    trace_id = field::Empty,
                    chat.id = %event.chat,
                    message.sequence = sequence.0,
                    member.count = members.len(),
                    recipient.count = members.len(),
                    online.count = field::Empty,
                );
                let span = trace::begin(span);
                self.metrics.batch_size.observe(f64::from(u32::try_from(members.len()).unwrap_or(u32::MAX)));
                let context = event.told(&span);
                let push = Push::Message(message.clone());
                let way = span.in_scope(|| self.put_on_the_way(context, push, members, &event.origin, routes));
                span.record("online.count", way.online);
                span.in_scope(|| {
                    tracing::debug!(
                        event = "message.routed",
                        operation = "route",
                        message.id = message.message_id,
                        chat.id = %event.chat,
                        user.id = message.sender_id,
                        "message {} goes to {} gateways", message.message_id, way.sent.len()
                    );
                });
                on_the_way.push(way);
                passed_on.pass(event.chat, *sequence);
                self.count(Fate::PassedOn);
                Ok(on_the_way)
            }
            Kind::Members { .. } | Kind::Description(_) if passed_on.knows(&event.id) => {
                self.count(Fate::Known);
                Ok(Vec::new())
            }
            Kind::Members { removed, push } => {
                // Whoever was removed is told last of all.
                let users: Vec<UserId> =
                    members.iter().filter(|user| Some(**user) != *removed).chain(removed).copied().collect();
                passed_on.remember(&event.id);
                self.count(Fate::PassedOn);
                Ok(push.iter().map(|push| way(push.clone(), &users, "")).collect())
            }
            Kind::Description(push) => {
                passed_on.remember(&event.id);
                self.count(Fate::PassedOn);
                Ok(vec![way(push.clone(), members, "")])
            }
        }
    }

    fn put_on_the_way(
        &self,
        traceparent: Option<String>,
        push: Push,
        users: &[UserId],
        origin: &str,
        routes: &Routes,
    ) -> OnTheWay {
        let frame = DeliveryFrame {
            origin_connection: origin.to_owned(),
            traceparent: traceparent.unwrap_or_default(),
            push: Some(push),
            ..DeliveryFrame::default()
        };
        let mut online = 0;
        let each = users.iter().flat_map(|user| {
            let gateways = routes.gateways.get(user).map(Vec::as_slice).unwrap_or_default();
            online += usize::from(!gateways.is_empty());
            gateways.iter().map(|gateway| (gateway, *user))
        });
        let sent = self.send(&frame, by_gateway(each));
        OnTheWay { frame, online, sent }
    }

    fn send(&self, frame: &DeliveryFrame, users: BTreeMap<&GatewayId, Vec<UserId>>) -> Vec<Sent> {
        users.into_iter().map(|(gateway, users)| self.gateways.send(gateway, users, frame)).collect()
    }

    /// Messages between the last one passed on and this one, as far as the store has them.
    async fn skipped(&self, chat: ChatId, last: Sequence, next: Sequence) -> Result<Vec<StoredMessage>, ErrorKind> {
        let most = self.limits.hole_messages as usize;
        let fetching = async {
            let mut found: Vec<StoredMessage> = Vec::new();
            let (mut at, mut missing) = (last, next.0 - last.0 - 1);
            while at.next() < next && found.len() < most {
                let left = usize::try_from(next.0 - at.0 - 1).unwrap_or(most).min(most - found.len());
                let page = self.history.after(chat, at, u32::try_from(left).unwrap_or(u32::MAX)).await?;
                if page.through <= at {
                    break;
                }
                at = page.through;
                // What a restore took out of use was never on the log (D3.9).
                missing = missing.saturating_sub(page.gap);
                found.extend(page.messages.into_iter().filter(|message| message.sequence < next));
            }
            Ok((found, missing))
        };
        let within: Duration = self.limits.hole_timeout;
        let found = match tokio::time::timeout(within, fetching).await {
            Ok(found) => found,
            Err(late) => Err(Error::unavailable("the store did not tell in time what the log skipped", late)),
        };
        let (found, missing) = found.map_err(|error| {
            tracing::warn!(
                event = "hole.unknown",
                chat.id = %chat,
                error.code = wire::code(&error),
                error.message = %error,
                "what the log skipped of {chat} is not known"
            );
            error.kind()
        })?;
        let result = if found.len() as u64 == missing { Hole::Filled } else { Hole::PassedOver };
        if result == Hole::PassedOver {
            tracing::warn!(
                event = "hole.passed_over",
                chat.id = %chat,
                "{} of {missing} messages of {chat} that the log skipped were found", found.len()
            );
        }
        count(&self.metrics.holes, result);
        Ok(found)
    }

    /// Waits until every frame is answered or its deadline is over. Routes that were not right are looked up once more.
    pub(crate) async fn settle(&self, all: Vec<OnTheWay>) {
        let mut moved = Vec::new();
        for OnTheWay { frame, sent, .. } in all {
            for mut one in sent {
                match self.heard(&mut one).await {
                    Some(Outcome::Unknown) => moved.push((frame.clone(), one)),
                    Some(Outcome::Delivered) => self.measure(&frame),
                    Some(Outcome::Full | Outcome::Unspecified) | None => {}
                }
            }
        }
        if moved.is_empty() {
            return;
        }
        let users: BTreeSet<UserId> = moved.iter().flat_map(|(_, one)| &one.users).copied().collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let found = match self.gateways_of(&users).await {
            Ok(found) => found,
            Err(error) => {
                // That run of the gateway is gone, and so are its connections: their clients sync.
                tracing::warn!(
                    event = "routes.away",
                    error.code = wire::code(&error),
                    error.message = %error,
                    "routes of a gateway that is gone were not looked up again"
                );
                return;
            }
        };
        let gateways: HashMap<UserId, Vec<GatewayId>> = users.into_iter().zip(found).collect();
        let mut again = Vec::new();
        for (frame, one) in &moved {
            let routed = one.users.iter().flat_map(|user| {
                let gateways = gateways.get(user).map(Vec::as_slice).unwrap_or_default();
                gateways.iter().filter(|gateway| **gateway != one.gateway).map(|gateway| (gateway, *user))
            });
            again.extend(self.send(frame, by_gateway(routed)));
        }
        for mut one in again {
            self.heard(&mut one).await;
        }
    }

    /// How long a message took from its commit; clocks that differ too much tell nothing (`observability.md` §5.1).
    fn measure(&self, frame: &DeliveryFrame) {
        let Some(Push::Message(message)) = &frame.push else { return };
        let took = self.clock.now().0 - message.created_at;
        if let Ok(millis) = u64::try_from(took) {
            self.metrics.delivery_seconds.observe(Duration::from_millis(millis).as_secs_f64());
        } else {
            self.metrics.clock_skew.inc();
            tracing::debug!(
                event = "clock.skewed",
                clock_skew_detected = true,
                chat.id = message.chat_id,
                message.id = message.message_id,
                latency_ms = took,
                "message {} came before it was committed: clocks differ",
                message.message_id
            );
        }
    }

    async fn heard(&self, sent: &mut Sent) -> Option<Outcome> {
        let answer = self.gateways.answer(sent).await;
        let outcome = answer.as_ref().map(DeliveryAnswer::outcome);
        let result = match outcome {
            Some(Outcome::Delivered) => Delivered::Taken,
            Some(Outcome::Unknown) => {
                self.gateways.forget(&sent.gateway);
                Delivered::Unknown
            }
            Some(Outcome::Full | Outcome::Unspecified) => {
                self.gateways.owe(&sent.gateway, &sent.users);
                Delivered::Full
            }
            None => Delivered::Skipped,
        };
        count(&self.metrics.frames, result);
        outcome
    }

    fn count(&self, result: Fate) {
        count(&self.metrics.records, result);
    }
}

fn by_gateway<'a>(routed: impl Iterator<Item = (&'a GatewayId, UserId)>) -> BTreeMap<&'a GatewayId, Vec<UserId>> {
    let mut users: BTreeMap<&GatewayId, Vec<UserId>> = BTreeMap::new();
    for (gateway, user) in routed {
        users.entry(gateway).or_default().push(user);
    }
    users
}

/// Where each user was connected when somebody asked first.
#[cfg(feature = "broken")]
fn as_it_was(users: &[UserId], found: Vec<Vec<GatewayId>>) -> Vec<Vec<GatewayId>> {
    static FIRST: std::sync::Mutex<BTreeMap<UserId, Vec<GatewayId>>> = std::sync::Mutex::new(BTreeMap::new());
    let mut first = FIRST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let each = users.iter().zip(found);
    each.map(|(user, now)| if now.is_empty() { now } else { first.entry(*user).or_insert(now).clone() }).collect()
}

fn as_push(message: &StoredMessage) -> Message {
    Message {
        message_id: message.id.to_string(),
        chat_id: message.chat.to_string(),
        sequence: message.sequence.0,
        sender_id: message.sender.to_string(),
        content: message.content.as_str().to_owned(),
        content_type: TEXT.to_owned(),
        created_at: message.created_at.0,
        client_message_id: Some(message.client_id.to_string()),
    }
}
