//! A ledger in memory, and fences.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use operator::engine::{Fence, Ledger, NotLeader, Record};

/// Keeps the record, and counts how often it was written.
#[derive(Default)]
pub(crate) struct Memory {
    record: Mutex<Record>,
    pub(crate) stores: AtomicU32,
}

impl Memory {
    pub(crate) fn record(&self) -> Record {
        self.record.lock().expect("not poisoned").clone()
    }

    pub(crate) fn stores(&self) -> u32 {
        self.stores.load(Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Ledger for Memory {
    async fn load(&self) -> anyhow::Result<Record> {
        Ok(self.record())
    }

    async fn store(&self, record: &Record) -> anyhow::Result<()> {
        self.stores.fetch_add(1, Ordering::Relaxed);
        *self.record.lock().expect("not poisoned") = record.clone();
        Ok(())
    }
}

/// Leads for ever.
pub(crate) struct Leads;

impl Fence for Leads {
    fn check(&self) -> Result<(), NotLeader> {
        Ok(())
    }
}

/// Loses the lead after so many changes.
pub(crate) struct Loses(pub(crate) AtomicU32);

impl Loses {
    pub(crate) fn after(changes: u32) -> Self {
        Self(AtomicU32::new(changes))
    }
}

impl Fence for Loses {
    fn check(&self) -> Result<(), NotLeader> {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| NotLeader)
    }
}
