//! What a client keeps on its own disk: messages, cursors, unsent messages, tokens.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use uuid::Uuid;

use super::{new_uuid, rest::Tokens};

/// A message as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its chat.
    pub chat: String,
    /// Its place.
    pub sequence: u64,
    /// The server's id.
    pub message_id: String,
    /// Who sent it.
    pub sender: String,
    /// Its text.
    pub content: String,
    /// UTC epoch milliseconds.
    pub created_at: i64,
}

/// A message that was not acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsent {
    pub(crate) client_message_id: String,
    pub(crate) chat: String,
    pub(crate) content: String,
    /// UTC epoch milliseconds.
    pub(crate) written_at: i64,
}

/// What a message brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// It was here already.
    pub(crate) is_duplicate: bool,
    /// The messages whose place is reached now, in order.
    pub(crate) reached: Vec<Kept>,
    /// A message above stands on a hole.
    pub(crate) has_hole: bool,
}

/// A SQLite file, or memory.
#[derive(Debug)]
pub struct Keep(Mutex<Connection>);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS one (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS chats (chat TEXT PRIMARY KEY, cursor INTEGER NOT NULL, acked INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS chats_left (chat TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS messages (
        chat TEXT NOT NULL, sequence INTEGER NOT NULL, message_id TEXT NOT NULL, sender TEXT NOT NULL,
        content TEXT NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (chat, sequence)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS outbox (
        place INTEGER PRIMARY KEY AUTOINCREMENT, client_message_id TEXT NOT NULL UNIQUE, chat TEXT NOT NULL,
        content TEXT NOT NULL, written_at INTEGER NOT NULL);
";

impl Keep {
    pub(crate) fn open(folder: Option<&Path>) -> anyhow::Result<Self> {
        let connection = match folder {
            Some(folder) => {
                std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
                let file = folder.join("client.sqlite");
                Connection::open(&file).with_context(|| format!("failed to open {}", file.display()))?
            }
            None => Connection::open_in_memory()?,
        };
        connection.execute_batch(TABLES).context("the local store can't be used")?;
        Ok(Self(Mutex::new(connection)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This installation's id, made once.
    pub(crate) fn device(&self) -> anyhow::Result<Uuid> {
        let fresh = new_uuid().to_string();
        let connection = self.lock();
        connection.execute("INSERT OR IGNORE INTO one VALUES ('device', ?1)", [fresh])?;
        let kept: String = connection.query_row("SELECT value FROM one WHERE name = 'device'", [], |row| row.get(0))?;
        kept.parse().context("the local store's device id is not a UUID")
    }

    pub(crate) fn tokens(&self) -> anyhow::Result<Option<Tokens>> {
        let connection = self.lock();
        let kept: Option<String> =
            connection.query_row("SELECT value FROM one WHERE name = 'tokens'", [], |row| row.get(0)).optional()?;
        kept.map(|text| serde_json::from_str(&text).context("the local store's tokens can't be read")).transpose()
    }

    pub(crate) fn set_tokens(&self, tokens: &Tokens) -> anyhow::Result<()> {
        let text = serde_json::to_string(tokens)?;
        self.lock().execute("INSERT OR REPLACE INTO one VALUES ('tokens', ?1)", [text])?;
        Ok(())
    }

    /// Follows a chat from now on; returns whether it did not before.
    pub(crate) fn follow(&self, chat: &str) -> anyhow::Result<bool> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let was_left = transaction.execute("DELETE FROM chats_left WHERE chat = ?1", [chat])? > 0;
        let is_new = transaction.execute("INSERT OR IGNORE INTO chats VALUES (?1, 0, 0)", [chat])? > 0;
        transaction.commit()?;
        Ok(was_left || is_new)
    }

    /// Forgets to follow a chat; its messages stay, and so does what the application has seen of it.
    pub(crate) fn leave(&self, chat: &str) -> anyhow::Result<()> {
        self.lock().execute("INSERT OR IGNORE INTO chats_left VALUES (?1)", [chat])?;
        Ok(())
    }

    pub(crate) fn chats(&self) -> anyhow::Result<Vec<String>> {
        let connection = self.lock();
        let sql = "SELECT chat FROM chats WHERE chat NOT IN (SELECT chat FROM chats_left) ORDER BY chat";
        let mut statement = connection.prepare(sql)?;
        let chats = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(chats)
    }

    /// The last contiguous sequence of a chat; 0 when nothing is here.
    pub(crate) fn cursor(&self, chat: &str) -> anyhow::Result<u64> {
        cursor(&self.lock(), chat)
    }

    /// Keeps one message. Its place is reached when all below are here.
    pub(crate) fn receive(&self, message: &Kept) -> anyhow::Result<Arrival> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let is_duplicate = insert(&transaction, message)? == 0;
        let reached = advance(&transaction, &message.chat, 0)?;
        let highest: i64 = transaction.query_row(
            "SELECT coalesce(max(sequence), 0) FROM messages WHERE chat = ?1",
            [&message.chat],
            |row| row.get(0),
        )?;
        let has_hole = highest.cast_unsigned() > cursor(&transaction, &message.chat)?;
        transaction.commit()?;
        Ok(Arrival { is_duplicate, reached, has_hole })
    }

    /// Keeps a page of a sync, which covers everything up to `covered`: what is not in it does not exist.
    pub(crate) fn receive_page(&self, chat: &str, page: &[Kept], covered: u64) -> anyhow::Result<(u64, Vec<Kept>)> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let mut duplicates = 0;
        for message in page {
            if insert(&transaction, message)? == 0 {
                duplicates += 1;
            }
        }
        let reached = advance(&transaction, chat, covered)?;
        transaction.commit()?;
        Ok((duplicates, reached))
    }

    pub(crate) fn view(&self, chat: &str) -> anyhow::Result<Vec<Kept>> {
        let connection = self.lock();
        let end = cursor(&connection, chat)?;
        between(&connection, chat, 0, end)
    }

    /// Chats with more than what was acknowledged, and up to where.
    pub(crate) fn to_acknowledge(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let connection = self.lock();
        let mut statement = connection.prepare(
            "SELECT chat, cursor FROM chats WHERE cursor > acked AND chat NOT IN (SELECT chat FROM chats_left)",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn set_acknowledged(&self, chat: &str, sequence: u64) -> anyhow::Result<()> {
        let values = params![chat, sequence.cast_signed()];
        self.lock().execute("UPDATE chats SET acked = max(acked, ?2) WHERE chat = ?1", values)?;
        Ok(())
    }

    pub(crate) fn add_unsent(&self, unsent: &Unsent) -> anyhow::Result<()> {
        let values = params![unsent.client_message_id, unsent.chat, unsent.content, unsent.written_at];
        let sql = "INSERT INTO outbox (client_message_id, chat, content, written_at) VALUES (?1, ?2, ?3, ?4)";
        self.lock().execute(sql, values)?;
        Ok(())
    }

    /// All that was not acknowledged, in the order in which it was handed over.
    pub(crate) fn unsent(&self) -> anyhow::Result<Vec<Unsent>> {
        let connection = self.lock();
        let sql = "SELECT client_message_id, chat, content, written_at FROM outbox ORDER BY place";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], unsent)?.collect::<Result<_, _>>()?;
        Ok(rows)
    }

    /// Returns what it was, if it was still unsent.
    pub(crate) fn remove_unsent(&self, client_message_id: &str) -> anyhow::Result<Option<Unsent>> {
        let connection = self.lock();
        let found = connection
            .query_row(
                "DELETE FROM outbox WHERE client_message_id = ?1 RETURNING client_message_id, chat, content, written_at",
                [client_message_id],
                unsent,
            )
            .optional()?;
        Ok(found)
    }
}

fn unsent(row: &Row<'_>) -> rusqlite::Result<Unsent> {
    Ok(Unsent { client_message_id: row.get(0)?, chat: row.get(1)?, content: row.get(2)?, written_at: row.get(3)? })
}

fn insert(transaction: &Transaction<'_>, message: &Kept) -> anyhow::Result<usize> {
    transaction.execute("INSERT OR IGNORE INTO chats VALUES (?1, 0, 0)", [&message.chat])?;
    Ok(transaction.execute(
        "INSERT OR IGNORE INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            message.chat,
            message.sequence.cast_signed(),
            message.message_id,
            message.sender,
            message.content,
            message.created_at
        ],
    )?)
}

/// Moves the cursor over all that is contiguous, beginning no lower than `covered`, and returns what it passed.
fn advance(transaction: &Transaction<'_>, chat: &str, covered: u64) -> anyhow::Result<Vec<Kept>> {
    let before = cursor(transaction, chat)?;
    let mut end = before.max(covered);
    let mut statement = transaction
        .prepare_cached("SELECT sequence FROM messages WHERE chat = ?1 AND sequence > ?2 ORDER BY sequence")?;
    let mut rows = statement.query(params![chat, end.cast_signed()])?;
    while let Some(row) = rows.next()? {
        let sequence = row.get::<_, i64>(0)?.cast_unsigned();
        if sequence != end + 1 {
            break;
        }
        end = sequence;
    }
    if end == before {
        return Ok(Vec::new());
    }
    transaction.execute("UPDATE chats SET cursor = ?2 WHERE chat = ?1", params![chat, end.cast_signed()])?;
    between(transaction, chat, before, end)
}

fn cursor(connection: &Connection, chat: &str) -> anyhow::Result<u64> {
    let kept: Option<i64> =
        connection.query_row("SELECT cursor FROM chats WHERE chat = ?1", [chat], |row| row.get(0)).optional()?;
    Ok(kept.unwrap_or(0).cast_unsigned())
}

fn between(connection: &Connection, chat: &str, after: u64, through: u64) -> anyhow::Result<Vec<Kept>> {
    let mut statement = connection.prepare_cached(
        "SELECT chat, sequence, message_id, sender, content, created_at FROM messages
         WHERE chat = ?1 AND sequence > ?2 AND sequence <= ?3 ORDER BY sequence",
    )?;
    let rows = statement.query_map(params![chat, after.cast_signed(), through.cast_signed()], |row| {
        Ok(Kept {
            chat: row.get(0)?,
            sequence: row.get::<_, i64>(1)?.cast_unsigned(),
            message_id: row.get(2)?,
            sender: row.get(3)?,
            content: row.get(4)?,
            created_at: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64) -> Kept {
        Kept {
            chat: "c".to_owned(),
            sequence,
            message_id: format!("m{sequence}"),
            sender: "u".to_owned(),
            content: "hi".to_owned(),
            created_at: 0,
        }
    }

    fn places(messages: &[Kept]) -> Vec<u64> {
        messages.iter().map(|message| message.sequence).collect()
    }

    #[test]
    fn the_application_sees_each_message_once_and_in_order() {
        let keep = Keep::open(None).expect("memory");
        let third = keep.receive(&message(3)).expect("kept");
        assert!(third.reached.is_empty() && third.has_hole);
        assert_eq!(places(&keep.receive(&message(1)).expect("kept").reached), [1]);
        let second = keep.receive(&message(2)).expect("kept");
        assert_eq!((places(&second.reached), second.has_hole), (vec![2, 3], false));
        let again = keep.receive(&message(2)).expect("kept");
        assert!(again.is_duplicate && again.reached.is_empty());
        assert_eq!(places(&keep.view("c").expect("view")), [1, 2, 3]);
    }

    #[test]
    fn a_page_of_a_sync_closes_holes_for_good() {
        let keep = Keep::open(None).expect("memory");
        keep.receive(&message(9)).expect("kept");
        let (duplicates, reached) = keep.receive_page("c", &[message(1), message(2), message(9)], 9).expect("kept");
        assert_eq!((duplicates, places(&reached)), (1, vec![1, 2, 9]));
        assert_eq!(keep.cursor("c").expect("cursor"), 9);
    }

    #[test]
    fn who_comes_back_into_a_chat_is_not_shown_the_same_again() {
        let keep = Keep::open(None).expect("memory");
        assert!(keep.follow("c").expect("kept"));
        keep.receive(&message(1)).expect("kept");
        keep.leave("c").expect("left");
        assert!(keep.chats().expect("kept").is_empty() && keep.to_acknowledge().expect("kept").is_empty());
        assert!(keep.follow("c").expect("kept") && !keep.follow("c").expect("kept"));
        let (_, reached) = keep.receive_page("c", &[message(1), message(2)], 2).expect("kept");
        assert_eq!(places(&reached), [2]);
    }

    #[test]
    fn what_is_unsent_is_remembered_in_its_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let unsent = |id: &str| Unsent {
            client_message_id: id.to_owned(),
            chat: "c".to_owned(),
            content: id.to_owned(),
            written_at: 7,
        };
        let device = {
            let keep = Keep::open(Some(folder.path())).expect("a file");
            for id in ["b", "a", "c"] {
                keep.add_unsent(&unsent(id)).expect("kept");
            }
            keep.remove_unsent("a").expect("removed").expect("was there");
            keep.device().expect("a device")
        };
        let keep = Keep::open(Some(folder.path())).expect("a file");
        assert_eq!(keep.unsent().expect("kept"), [unsent("b"), unsent("c")]);
        assert_eq!(keep.device().expect("a device"), device);
    }
}
