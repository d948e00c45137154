//! Writes down what a client does and sees, when somebody wants its history.

use std::sync::atomic::{AtomicU64, Ordering};

use proto::messaging::v1::SyncResponse;

use super::{Kept, Sent, keep::Unsent};
use crate::history::{
    line::{Kind, Line, What, digest},
    recorder::Recorder,
};

/// Writes for one client; without a recorder, nothing.
#[derive(Debug, Default)]
pub(super) struct Witness {
    to: Option<(Recorder, String)>,
    user: String,
    epoch: AtomicU64,
}

impl Witness {
    pub(super) fn new(to: Option<(Recorder, String)>, user: &str) -> Self {
        Self { to, user: user.to_owned(), epoch: AtomicU64::new(0) }
    }

    fn write(&self, what: What, kind: Kind, line: impl FnOnce() -> Line) {
        if let Some((recorder, session)) = &self.to {
            let epoch = self.epoch.load(Ordering::Relaxed);
            recorder.write(Line { what, kind, session: session.clone(), epoch, ..line() });
        }
    }

    fn of_user(&self) -> Line {
        Line { user: Some(self.user.clone()), ..Line::default() }
    }

    pub(super) fn connected(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.write(What::Connect, Kind::Ok, || self.of_user());
    }

    pub(super) fn ready(&self) {
        self.write(What::Ready, Kind::Ok, || self.of_user());
    }

    pub(super) fn closed(&self, why: &str) {
        self.write(What::Close, Kind::Ok, || Line { error: Some(why.to_owned()), ..self.of_user() });
    }

    /// An attempt goes out.
    pub(super) fn sends(&self, unsent: &Unsent) {
        self.write(What::Send, Kind::Invoke, || Line {
            chat: Some(unsent.chat.clone()),
            client_id: Some(unsent.client_message_id.clone()),
            body: Some(digest(&unsent.content)),
            ..self.of_user()
        });
    }

    pub(super) fn sent(&self, chat: &str, sent: &Sent) {
        self.write(What::Send, Kind::Ok, || Line {
            chat: Some(chat.to_owned()),
            client_id: Some(sent.client_message_id.clone()),
            message_id: Some(sent.message_id.clone()),
            sequence: Some(sent.sequence),
            ..self.of_user()
        });
    }

    /// An attempt was refused; `kind` says whether the message may be stored all the same.
    pub(super) fn refused(&self, client_id: &str, kind: Kind, code: &str) {
        self.write(What::Send, kind, || Line {
            client_id: Some(client_id.to_owned()),
            error: Some(code.to_owned()),
            ..self.of_user()
        });
    }

    pub(super) fn pushed(&self, kept: &Kept) {
        self.write(What::Deliver, Kind::Ok, || seen(kept));
    }

    pub(super) fn showed(&self, kept: &Kept) {
        self.write(What::Show, Kind::Ok, || seen(kept));
    }

    pub(super) fn asks(&self, chat: &str, cursor: u64) {
        let line = || Line { chat: Some(chat.to_owned()), cursor: Some(cursor), ..self.of_user() };
        self.write(What::Sync, Kind::Invoke, line);
    }

    pub(super) fn read(&self, page: &SyncResponse) {
        self.write(What::Sync, Kind::Ok, || {
            let item =
                |item: &proto::messaging::v1::SyncItem| (item.sequence, item.message_id.clone(), digest(&item.content));
            Line {
                chat: Some(page.chat_id.clone()),
                items: page.messages.iter().map(item).collect(),
                more: Some(page.has_more),
                ..self.of_user()
            }
        });
    }

    pub(super) fn page_refused(&self, chat: &str, code: &str) {
        let line = || Line { chat: Some(chat.to_owned()), error: Some(code.to_owned()), ..self.of_user() };
        self.write(What::Sync, Kind::Fail, line);
    }
}

/// A message whose sender is somebody else, so the line has no user.
fn seen(kept: &Kept) -> Line {
    Line {
        chat: Some(kept.chat.clone()),
        message_id: Some(kept.message_id.clone()),
        sequence: Some(kept.sequence),
        body: Some(digest(&kept.content)),
        ..Line::default()
    }
}
