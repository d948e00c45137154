//! The delivery streams to gateways: one for each address, made when first needed, answered in order (D5.1).
//!
//! A gateway that does not take a frame is skipped, never the message: its users are owed, and named in
//! the next frame to it, which follows by itself as soon as the gateway answers again (D5.4). When this process stops
//! before that, or has tried for long, the registry is made to forget the gateway: then it tells them itself.

mod link;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{Error, ids::UserId, ports::ConnectionRegistry, route::GatewayId};
use platform::{Process, grpc::InternalToken};
use proto::messaging::v1::{DeliveryAnswer, DeliveryFrame};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::config::Limits;
use link::{Link, Outgoing, Owed};

/// The streams to all gateways.
pub struct Gateways {
    links: Mutex<HashMap<Arc<str>, Arc<Link>>>,
    registry: Arc<dyn ConnectionRegistry>,
    process: Process,
    token: InternalToken,
    limits: Limits,
}

/// A frame on its way.
pub struct Sent {
    /// To whom.
    pub gateway: GatewayId,
    /// For whom.
    pub users: Vec<UserId>,
    answer: Option<oneshot::Receiver<DeliveryAnswer>>,
    deadline: Instant,
}

impl Gateways {
    /// No streams yet; each belongs to the process.
    pub fn new(
        process: &Process,
        token: InternalToken,
        limits: &Limits,
        registry: Arc<dyn ConnectionRegistry>,
    ) -> Arc<Self> {
        let links = Mutex::new(HashMap::new());
        Arc::new(Self { links, registry, process: process.clone(), token, limits: limits.clone() })
    }

    /// Puts a frame for those users on the way; frames to one gateway keep their order. Waits for nothing.
    pub fn send(self: &Arc<Self>, gateway: &GatewayId, users: Vec<UserId>, frame: &DeliveryFrame) -> Sent {
        let user_ids = users.iter().map(UserId::to_string).collect();
        let frame = DeliveryFrame { gateway_id: gateway.to_string(), user_ids, ..frame.clone() };
        let (reply, answer) = oneshot::channel();
        let taken = self.link(gateway).send(Outgoing { frame, owed: Owed::default(), reply });
        let deadline = Instant::now() + self.limits.delivery_timeout;
        Sent { gateway: gateway.clone(), users, answer: taken.then_some(answer), deadline }
    }

    /// The gateway's answer; `None` when there is none in time. Users without one are owed from then on.
    pub async fn answer(self: &Arc<Self>, sent: &mut Sent) -> Option<DeliveryAnswer> {
        let answer = match sent.answer.take() {
            Some(answer) => tokio::time::timeout_at(sent.deadline, answer).await.ok().and_then(Result::ok),
            None => None,
        };
        if answer.is_none() {
            self.owe(&sent.gateway, &sent.users);
        }
        answer
    }

    /// Remembers that these users of that gateway missed a frame.
    pub fn owe(self: &Arc<Self>, gateway: &GatewayId, users: &[UserId]) {
        self.link(gateway).owe(&gateway.to_string(), users.into());
    }

    /// Forgets what that run of a gateway was owed: its connections are gone, and their clients sync.
    pub fn forget(&self, gateway: &GatewayId) {
        if let Some(link) = self.lock().get(&gateway.address) {
            link.forget(&gateway.to_string());
        }
    }

    /// Lets those who are owed something be told by their gateway, which this process does not reach: when it finds that
    /// the registry has forgotten it, it has all its clients sync.
    async fn leave_to_themselves(&self, gateways: Vec<String>) {
        for name in gateways {
            let told = match name.parse::<GatewayId>() {
                Ok(gateway) => timeout(self.limits.delivery_timeout, self.registry.forget(&gateway)).await,
                Err(error) => Ok(Err(Error::internal(error))),
            };
            let failed = match told {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(late) => late.to_string(),
            };
            tracing::warn!(
                event = "owed.not_told",
                gateway = %name,
                error.message = %failed,
                "users of {name} are not told that they missed something"
            );
        }
    }

    fn link(self: &Arc<Self>, gateway: &GatewayId) -> Arc<Link> {
        let mut links = self.lock();
        if let Some(link) = links.get(&gateway.address)
            && !link.has_ended()
        {
            return link.clone();
        }
        let link = link::start(self.clone(), &gateway.address);
        links.insert(gateway.address.clone(), link.clone());
        link
    }

    /// Ends a link unless somebody has just used it: whoever holds the lock decides.
    fn end_if_unused(&self, address: &str, link: &Link) -> bool {
        let mut links = self.lock();
        let is_unused = link.end_if_unused();
        if is_unused {
            links.remove(address);
        }
        is_unused
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Arc<Link>>> {
        // Plain data, whole even when a task panicked while it held them.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
